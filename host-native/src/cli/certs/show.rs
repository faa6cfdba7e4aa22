//! What certificates say.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::Context;
use super::super::exit::{Exit, Failure};
use super::super::output::{Document, Sheet, Tone};
use super::duration_of;
use crate::tls::authority::cluster_of;
use crate::tls::{Credentials, Identity, Role, Validity, certificates};

/// A certificate that is good for less than this should be replaced.
const EXPIRES_SOON_DAYS: u32 = 30;

/// Certificates, for `-o json`.
#[derive(Serialize)]
struct Shown {
    certificates: Vec<ShownCertificate>,
}

#[derive(Serialize)]
struct ShownCertificate {
    file: PathBuf,
    /// `authority`, `node`, `client`, `admin`.
    role: &'static str,
    /// The id of a node, the name of a client or an admin.
    name: Option<String>,
    cluster: String,
    not_before: String,
    not_after: String,
    days_left: u64,
    state: State,
    /// SHA-256 of the certificate, in hexadecimal digits.
    fingerprint: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    Good,
    ExpiresSoon,
    Expired,
    NotYetGood,
}

impl State {
    fn of(validity: Validity, now: SystemTime) -> Self {
        let left = validity.until.duration_since(now).ok();
        match left {
            None => Self::Expired,
            Some(_) if validity.from > now => Self::NotYetGood,
            Some(left) if left < duration_of(EXPIRES_SOON_DAYS) => Self::ExpiresSoon,
            Some(_) => Self::Good,
        }
    }

    fn shown(self) -> (String, Tone) {
        let (text, tone) = match self {
            Self::Good => ("good", Tone::Good),
            Self::ExpiresSoon => ("expires soon", Tone::Warning),
            Self::Expired => ("expired", Tone::Bad),
            Self::NotYetGood => ("not good yet", Tone::Bad),
        };
        (text.to_owned(), tone)
    }

    fn is_good(self) -> bool {
        match self {
            Self::Good | Self::ExpiresSoon => true,
            Self::Expired | Self::NotYetGood => false,
        }
    }
}

/// All certificates of a folder, by name.
pub(super) fn all_of(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::configuration(format!("cannot read the folder {}: {error}", folder.display()))
            .hint("name the folder of the certificates with --dir")
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Shows what certificates say.
pub(super) fn show(files: &[PathBuf], context: &Context) -> Result<Exit, Failure> {
    let mut shown = Shown { certificates: Vec::new() };
    for file in files {
        for certificate in certificates(file).map_err(Failure::configuration)? {
            shown.certificates.push(describe(file, &certificate)?);
        }
    }
    context.output.print(&shown)?;
    let all_good = shown.certificates.iter().all(|certificate| certificate.state.is_good());
    Ok(if all_good { Exit::Ok } else { Exit::Negative })
}

fn describe(file: &Path, certificate: &CertificateDer<'_>) -> Result<ShownCertificate, Failure> {
    let unreadable = |why: &dyn std::fmt::Display| {
        Failure::configuration(format!("{} cannot be shown: {why}", file.display()))
    };
    let validity = Validity::of(certificate).ok_or_else(|| unreadable(&"its dates are odd"))?;
    let (role, name, cluster) = if let Some(cluster) = cluster_of(certificate) {
        ("authority", None, cluster)
    } else {
        let identity = Identity::of_certificate(certificate).map_err(|error| unreadable(&error))?;
        let (role, name) = match identity.role {
            Role::Node(id) => ("node", id.to_string()),
            Role::Client(name) => ("client", name),
            Role::Admin(name) => ("admin", name),
        };
        (role, Some(name), identity.cluster)
    };
    let now = SystemTime::now();
    let left = validity.until.duration_since(now).unwrap_or_default();
    Ok(ShownCertificate {
        file: file.to_owned(),
        role,
        name,
        cluster: cluster.to_string(),
        not_before: date(validity.from),
        not_after: date(validity.until),
        days_left: left.as_secs() / 86_400,
        state: State::of(validity, now),
        fingerprint: fingerprint(certificate),
    })
}

fn date(moment: SystemTime) -> String {
    let moment = OffsetDateTime::from(moment);
    moment.format(&Rfc3339).unwrap_or_else(|_out_of_range| moment.to_string())
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let rustls::SupportedCipherSuite::Tls13(suite) = suite;
    let digest = suite.common.hash_provider.hash(certificate);
    let digits: Vec<_> = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

impl Document for Shown {
    fn sheet(&self) -> Sheet {
        let mut sheet = Sheet::new(&[
            "file",
            "role",
            "name",
            "state",
            "#days left",
            "not after",
            "fingerprint",
        ]);
        for shown in &self.certificates {
            let plain = |text: &str| (text.to_owned(), Tone::Plain);
            sheet.toned(vec![
                plain(&shown.file.display().to_string()),
                plain(shown.role),
                plain(shown.name.as_deref().unwrap_or("-")),
                shown.state.shown(),
                plain(&shown.days_left.to_string()),
                plain(&shown.not_after),
                plain(&shown.fingerprint),
            ]);
        }
        sheet.when_empty("There are no certificates.");
        let mut clusters: Vec<_> = self.certificates.iter().map(|shown| &shown.cluster).collect();
        clusters.sort();
        clusters.dedup();
        for cluster in clusters {
            sheet.remark(format!("Cluster {cluster}."));
        }
        sheet
    }
}

/// Refuses a certificate that is not good now. Returns a warning of one that will not be for long.
pub(crate) fn check_validity(credentials: &Credentials) -> Result<Option<String>, Failure> {
    let Some(validity) = credentials.validity() else { return Ok(None) };
    let role = &credentials.identity().role;
    let again =
        "make a new one with `quorlock certs`; `quorlock certs show` shows how long each is good";
    match State::of(validity, SystemTime::now()) {
        State::Good => Ok(None),
        State::ExpiresSoon => {
            let left = validity.until.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
            let days = left.as_secs() / 86_400;
            Ok(Some(format!("the certificate of {role} expires in {days} days: {again}")))
        }
        State::Expired => {
            let what = format!("the certificate of {role} expired on {}", date(validity.until));
            Err(Failure::configuration(what).hint(again))
        }
        State::NotYetGood => {
            let from = date(validity.from);
            let what = format!("the certificate of {role} is not good before {from}");
            Err(Failure::configuration(what).hint("check the clock of this machine"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::authority::Authority;

    #[test]
    fn states_follow_each_other() {
        let day = Duration::from_hours(24);
        let from = SystemTime::UNIX_EPOCH + day * 1000;
        let validity = Validity { from, until: from + day * 365 };
        assert_eq!(State::of(validity, from - day), State::NotYetGood);
        assert_eq!(State::of(validity, from), State::Good);
        assert_eq!(State::of(validity, from + day * 336), State::ExpiresSoon);
        assert_eq!(State::of(validity, from + day * 366), State::Expired);
    }

    #[test]
    fn says_whose_a_certificate_is() {
        let (authority, ca) = Authority::create(duration_of(1)).expect("it can be made");
        let issued = authority.issue(Role::Admin("alice".into()), duration_of(100));
        let folder = tempfile::tempdir().expect("there is room");
        let file = folder.path().join("two.pem");
        let both = ca.certificate + &issued.expect("it can be made").certificate;
        std::fs::write(&file, both).expect("it can be written");
        let shown: Vec<_> = certificates(&file)
            .expect("there are two")
            .iter()
            .map(|certificate| describe(&file, certificate).expect("it can be read"))
            .collect();
        let [ca, admin] = shown.as_slice() else { panic!("there are two") };
        assert_eq!(
            (ca.role, ca.name.as_deref(), ca.state),
            ("authority", None, State::ExpiresSoon)
        );
        assert_eq!((admin.role, admin.name.as_deref()), ("admin", Some("alice")));
        assert_eq!((admin.state, admin.days_left), (State::Good, 99));
        assert_eq!(admin.cluster, authority.cluster().as_str());
        assert_eq!(admin.fingerprint.len(), 64);
    }
}
