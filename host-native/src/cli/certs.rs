//! `quorlock certs`: makes and shows certificates.
//!
//! Everything is in one folder: the authority as `ca.pem` and `ca.key`, and for each node and client
//! a pair such as `node-0.pem` and `node-0.key`, `client-ci.pem`, `admin-alice.pem`. A node or a client
//! needs its own pair and `ca.pem`; `ca.key` stays where it was made, since whoever has it can be
//! everybody.
//!
//! Keys are readable by their owner alone, and no file is ever overwritten: a key that is gone cannot be
//! made again.

mod folder;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::Context;
use super::exit::{Exit, Failure};
use super::output::{Document, Sheet};
use crate::tls::authority::{Authority, AuthorityError, Issued};
use crate::tls::{ClusterId, Role};
use quorlock_core::ids::{ID_MAX, NodeId};

pub(crate) use folder::Folder;
pub(crate) use show::check_validity;

/// How long certificates last, unless somebody says otherwise.
const DAYS: u32 = 365;
/// How long an authority does.
const AUTHORITY_DAYS: u32 = 3650;

/// What to do with certificates.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum CertsCommand {
    /// Makes the authority of a new cluster.
    Init {
        #[command(flatten)]
        folder: FolderArguments,
        /// How many days it is good for.
        #[arg(long, value_name = "DAYS", default_value_t = AUTHORITY_DAYS, value_parser = days())]
        days: u32,
    },
    /// Makes the certificates of nodes.
    Node {
        /// The ids of the nodes.
        #[arg(required = true, value_name = "ID", value_parser = clap::value_parser!(u64).range(..ID_MAX))]
        ids: Vec<u64>,
        #[command(flatten)]
        folder: FolderArguments,
        /// How many days they are good for.
        #[arg(long, value_name = "DAYS", default_value_t = DAYS, value_parser = days())]
        days: u32,
    },
    /// Makes the certificate of a client.
    Client {
        /// The name of the client: letters, digits and . _ -
        name: String,
        /// It may also take locks away from others.
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        folder: FolderArguments,
        /// How many days it is good for.
        #[arg(long, value_name = "DAYS", default_value_t = DAYS, value_parser = days())]
        days: u32,
    },
    /// Shows what certificates say, and how long they are good.
    ///
    /// Exits with 1 if one of them is not good now.
    Show {
        /// The certificates; without any, all of the folder.
        files: Vec<PathBuf>,
        #[command(flatten)]
        folder: FolderArguments,
    },
}

/// Where certificates are.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct FolderArguments {
    /// The folder of the certificates.
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    // As long as dates of certificates have four digits.
    clap::value_parser!(u32).range(1..=365_000)
}

/// A number of days.
pub(crate) fn duration_of(days: u32) -> Duration {
    Duration::from_hours(24) * days
}

/// Does it.
pub(crate) fn run(command: CertsCommand, context: &Context) -> Result<Exit, Failure> {
    match command {
        CertsCommand::Init { folder, days } => init(&Folder::new(folder.dir), days, context),
        CertsCommand::Node { ids, folder, days } => {
            let roles = ids.into_iter().map(|id| Role::Node(NodeId::new(id)));
            issue(&Folder::new(folder.dir), roles.collect(), days, context)
        }
        CertsCommand::Client { name, admin, folder, days } => {
            let role = if admin { Role::Admin(name) } else { Role::Client(name) };
            issue(&Folder::new(folder.dir), vec![role], days, context)
        }
        CertsCommand::Show { files, folder } => {
            let files = if files.is_empty() { show::all_of(&folder.dir)? } else { files };
            show::show(&files, context)
        }
    }
}

fn init(folder: &Folder, days: u32, context: &Context) -> Result<Exit, Failure> {
    let (authority, issued) = Authority::create(duration_of(days))?;
    folder.store("ca", &issued)?;
    let mut made = Made::new(authority.cluster());
    made.add(folder, "ca", "authority".to_owned());
    made.next = Some(format!(
        "Keep ca.key safe. Next: quorlock certs node 0 1 2 --dir {}",
        folder.path().display()
    ));
    context.output.print(&made)?;
    Ok(Exit::Ok)
}

fn issue(folder: &Folder, roles: Vec<Role>, days: u32, context: &Context) -> Result<Exit, Failure> {
    let authority = folder.authority()?;
    let mut made = Made::new(authority.cluster());
    for role in roles {
        let name = Folder::name_of(&role);
        folder.issue(&authority, role.clone(), duration_of(days))?;
        made.add(folder, &name, role.to_string());
    }
    context.output.print(&made)?;
    Ok(Exit::Ok)
}

/// What was made.
#[derive(Serialize)]
struct Made {
    cluster: String,
    certificates: Vec<MadeCertificate>,
    #[serde(skip)]
    next: Option<String>,
}

#[derive(Serialize)]
struct MadeCertificate {
    /// `authority`, `node 3`, `client ci`, `admin alice`.
    role: String,
    certificate: PathBuf,
    key: PathBuf,
}

impl Made {
    fn new(cluster: &ClusterId) -> Self {
        Self { cluster: cluster.to_string(), certificates: Vec::new(), next: None }
    }

    fn add(&mut self, folder: &Folder, name: &str, role: String) {
        let (certificate, key) = (folder.certificate(name), folder.key(name));
        self.certificates.push(MadeCertificate { role, certificate, key });
    }
}

impl Document for Made {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&["role", "certificate", "key"]);
        for made in &self.certificates {
            let (certificate, key) = (made.certificate.display(), made.key.display());
            sheet.row([made.role.clone(), certificate.to_string(), key.to_string()]);
        }
        sheet.remark(format!("Cluster {}.", self.cluster));
        if let Some(next) = &self.next {
            sheet.remark(next);
        }
        sheet
    }
}

/// A certificate that cannot be made.
impl From<AuthorityError> for Failure {
    fn from(error: AuthorityError) -> Self {
        match &error {
            AuthorityError::Certificate(_) | AuthorityError::Random(_) => Self::internal(error),
            AuthorityError::Files(_)
            | AuthorityError::Key { .. }
            | AuthorityError::NoCluster { .. } => Self::configuration(error).hint(
                "make an authority with `quorlock certs init`, or name its folder with --dir",
            ),
            AuthorityError::Name { .. } => Self::usage(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::tls::Credentials;

    fn mode(path: &std::path::Path) -> u32 {
        std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_can_be_used_and_keys_only_by_their_user() {
        let temporary = tempfile::tempdir().expect("there is room");
        let folder = Folder::new(temporary.path().join("certs"));
        let (authority, issued) = Authority::create(duration_of(1)).expect("it can be made");
        folder.store("ca", &issued).expect("it can be stored");
        folder.issue(&authority, Role::Admin("a".into()), duration_of(1)).expect("it can be made");
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.key("ca")), 0o600);
        assert_eq!(mode(&folder.key("admin-a")), 0o600);
        let [ca, certificate] = ["ca", "admin-a"].map(|name| folder.certificate(name));
        let credentials = Credentials::from_files(&ca, &certificate, &folder.key("admin-a"));
        let credentials = credentials.expect("they can be read");
        assert_eq!(credentials.identity().role, Role::Admin("a".into()));
        assert_eq!(folder.authority().expect("it can be read").cluster(), authority.cluster());
    }

    #[test]
    fn nothing_is_overwritten() {
        let temporary = tempfile::tempdir().expect("there is room");
        let folder = Folder::new(temporary.path().to_owned());
        let (_, first) = Authority::create(duration_of(1)).expect("it can be made");
        let (_, second) = Authority::create(duration_of(1)).expect("it can be made");
        folder.store("ca", &first).expect("it can be stored");
        let failure = folder.store("ca", &second).expect_err("it is there already");
        assert!(failure.to_string().contains("already"), "{failure}");
        std::fs::remove_file(folder.certificate("ca")).expect("it is there");
        folder.store("ca", &second).expect_err("its key is there still");
        assert!(!folder.certificate("ca").exists());
        assert_eq!(std::fs::read_to_string(folder.key("ca")).expect("it is there"), first.key);
    }
}
