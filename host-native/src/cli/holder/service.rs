//! A socket at which a holder can be asked to do something under its lock.
//!
//! An append counts only within the session that holds the lock. So a process that keeps a session, and
//! with it a lock, does for others what needs both: `quorlock append` inside of `quorlock run`, and
//! `quorlock release`. It listens in a folder that only its user can enter, which is all the permission
//! that there is: who can reach the socket may use the lock.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quorlock_core::checksum::Checksum;
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::protocol::{APPEND_BYTES_MAX, Question, Reply, read, write};
use crate::cli::exit::{Exit, Failure};
use crate::client::{Lock, Op, Rejection};
use crate::tls::ClusterId;

/// The most connections at once; more wait.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may say nothing in the middle of a question.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How many old sockets are looked at, at each start, and how old they are.
const SWEPT_MAX: usize = 100;
const SWEPT_AFTER: Duration = Duration::from_mins(1);

/// Who knows the answers.
trait Answers: Send + Sync + 'static {
    /// The answer to a question, which may come with bytes.
    fn answer(&self, question: Question, bytes: Vec<u8>) -> impl Future<Output = Reply> + Send;
}

impl Answers for Held {
    async fn answer(&self, question: Question, bytes: Vec<u8>) -> Reply {
        self.answer_to(question, bytes).await
    }
}

/// A held lock, and what others may do with it.
#[derive(Debug)]
pub(crate) struct Held {
    /// The lock.
    pub(crate) lock: Lock,
    /// Why others may not release it, if they may not.
    pub(crate) keep: Option<String>,
    released: watch::Sender<bool>,
}

impl Held {
    pub(crate) fn new(lock: Lock, keep: Option<String>) -> Arc<Self> {
        Arc::new(Self { lock, keep, released: watch::Sender::new(false) })
    }

    /// Gives the lock back. The guard stays, and is worth nothing any more.
    ///
    /// # Errors
    /// [`Rejection::NotHolder`]: it was lost before; or it is not known whether it is free.
    pub(crate) async fn release(&self) -> Result<(), crate::client::CallError> {
        let (lock, token) = (self.lock.name().clone(), self.lock.token());
        let op = Op::Release { lock, token, appends: Vec::new() };
        let released = self.lock.client().call(op).await.map(|_done| ());
        if released.is_ok() {
            self.released.send_replace(true);
        }
        released
    }

    /// Waits until the lock was given back here.
    pub(crate) async fn released(&self) {
        let mut released = self.released.subscribe();
        // We keep the sender.
        drop(released.wait_for(|released| *released).await);
    }

    async fn answer_to(&self, question: Question, bytes: Vec<u8>) -> Reply {
        let done = match question {
            Question::Append { lock, token, file, .. } => match self.check(&lock, token) {
                Ok(()) => self.append(&file, bytes).await,
                Err(failure) => Err(failure),
            },
            Question::Release { lock, token } => match self.check(&lock, token) {
                Ok(()) => self.release_for_another().await,
                Err(failure) => Err(failure),
            },
            Question::Status {} => Ok(self.status()),
        };
        done.unwrap_or_else(|failure| Reply::refused(&failure))
    }

    /// Whether we hold what the asker thinks of.
    fn check(&self, lock: &str, token: u64) -> Result<(), Failure> {
        let (ours, current) = (self.lock.name(), self.lock.token());
        if ours.as_str() != lock || current.value() != token {
            let what = format!(
                "{lock} with token {token} is not what is held here, which is {ours} with token {current}"
            );
            return Err(Failure::new(Exit::Lost, what));
        }
        match self.lock.loss() {
            Some(loss) => Err(Failure::new(Exit::Lost, loss)),
            None => Ok(()),
        }
    }

    async fn append(&self, file: &str, bytes: Vec<u8>) -> Result<Reply, Failure> {
        match self.lock.append(file, bytes).await {
            Ok(offset) => Ok(Reply::Appended { offset }),
            Err(error) => Err(error.into()),
        }
    }

    async fn release_for_another(&self) -> Result<Reply, Failure> {
        if let Some(keep) = &self.keep {
            return Err(Failure::new(Exit::Negative, keep));
        }
        self.release().await?;
        Ok(Reply::Released {})
    }

    fn status(&self) -> Reply {
        let client = self.lock.client();
        let lease_left = client.lease_left().unwrap_or_default();
        Reply::Status {
            lock: self.lock.name().to_string(),
            token: self.lock.token().value(),
            session: client.session().value(),
            pid: std::process::id(),
            lease_left_ms: u64::try_from(lease_left.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Whether a release was refused because there was nothing to release any more.
pub(crate) fn was_lost(error: &crate::client::CallError) -> bool {
    matches!(
        error,
        crate::client::CallError::Rejected(Rejection::NotHolder { .. })
            | crate::client::CallError::SessionEnded(_)
    )
}

/// The socket. It is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Service {
    path: PathBuf,
    accepting: JoinHandle<()>,
}

impl Service {
    /// Begins to listen.
    ///
    /// # Errors
    /// The folder or the socket cannot be made.
    pub(crate) fn start(cluster: &ClusterId, held: &Arc<Held>) -> io::Result<Self> {
        let folder = folder(true)?;
        sweep(&folder);
        let path = folder.join(name(cluster, held.lock.name().as_str(), held.lock.token().value()));
        // A token is granted once, so whoever had this path before is gone.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        let accepting = tokio::spawn(accept(listener, Arc::clone(held)));
        Ok(Self { path, accepting })
    }

    /// Where it listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "cannot remove the socket");
        }
    }
}

/// The folder of all sockets of this user.
///
/// # Errors
/// It cannot be made, or is not this user's alone.
fn folder(make: bool) -> io::Result<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|path| path.is_absolute() && path.is_dir());
    let folder = match runtime {
        Some(runtime) => runtime.join("quorlock"),
        None => std::env::temp_dir().join(format!("quorlock-{user}")),
    };
    if make {
        match std::fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    // Not through a link: in a folder for all somebody else may have put one there.
    let found = std::fs::symlink_metadata(&folder)?;
    if !found.is_dir() || found.uid() != user || found.permissions().mode() & 0o077 != 0 {
        let what = format!("{} must be a folder that is yours alone (mode 0700)", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(folder)
}

/// Removes the sockets of holders that were killed. Whoever listens is asked nothing.
fn sweep(folder: &Path) {
    let Ok(sockets) = std::fs::read_dir(folder) else { return };
    for socket in sockets.flatten().take(SWEPT_MAX) {
        // A young one may be about to be listened at.
        let made = socket.metadata().and_then(|found| found.modified());
        let is_old = made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > SWEPT_AFTER));
        let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        if is_old
            && std::os::unix::net::UnixStream::connect(socket.path()).is_err_and(refused)
            && let Err(error) = std::fs::remove_file(socket.path())
        {
            tracing::debug!(%error, "cannot remove an old socket");
        }
    }
}

/// Where the holder of a lock would listen on this machine, if there is one.
pub(crate) fn find(cluster: &ClusterId, lock: &str, token: u64) -> Option<PathBuf> {
    let path = folder(false).ok()?.join(name(cluster, lock, token));
    path.exists().then_some(path)
}

/// Short and without strange characters, whatever the lock is called.
fn name(cluster: &ClusterId, lock: &str, token: u64) -> String {
    let text = format!("{}\n{lock}\n{token}", cluster.as_str());
    format!("{}.socket", Checksum::of(text.as_bytes()))
}

async fn accept(listener: UnixListener, held: Arc<impl Answers>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let held = Arc::clone(&held);
                connections.spawn(async move {
                    if let Err(error) = serve(stream, &*held).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                    drop(place);
                });
            }
            // For lack of descriptors: some are given back in a while.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: UnixStream, held: &impl Answers) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let question = match tokio::time::timeout(SILENCE_MAX, read(&mut stream)).await {
            Ok(Ok(Some(question))) => question,
            Ok(Ok(None)) | Err(_) => return Ok(()),
            Ok(Err(error)) => {
                let refused = Reply::Refused { exit: Exit::Usage.code(), what: error.to_string() };
                return write(stream.get_mut(), &refused, b"").await;
            }
        };
        let bytes = match read_bytes(&mut stream, &question).await {
            Ok(bytes) => bytes,
            Err(error) => {
                let refused = Reply::Refused { exit: Exit::Usage.code(), what: error.to_string() };
                return write(stream.get_mut(), &refused, b"").await;
            }
        };
        let reply = held.answer(question, bytes).await;
        write(stream.get_mut(), &reply, b"").await?;
    }
}

/// What comes after the line of an append.
async fn read_bytes(
    stream: &mut BufReader<UnixStream>,
    question: &Question,
) -> io::Result<Vec<u8>> {
    let length = match question {
        Question::Append { length, .. } => *length,
        Question::Release { .. } | Question::Status {} => 0,
    };
    if length > APPEND_BYTES_MAX {
        let what =
            format!("{length} bytes are too many for one append: {APPEND_BYTES_MAX} is the limit");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    tokio::time::timeout(SILENCE_MAX, stream.read_exact(&mut bytes)).await??;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says how many bytes came.
    struct Counts;

    impl Answers for Counts {
        async fn answer(&self, _question: Question, bytes: Vec<u8>) -> Reply {
            Reply::Appended { offset: bytes.len() as u64 }
        }
    }

    async fn ask(stream: &mut BufReader<UnixStream>, length: u32, bytes: &[u8]) -> Reply {
        let (lock, file) = ("deploy".to_owned(), "log".to_owned());
        let question = Question::Append { lock, token: 7, file, length };
        write(stream.get_mut(), &question, bytes).await.expect("it is there");
        read(stream).await.expect("it answers").expect("it answers")
    }

    #[tokio::test]
    async fn bytes_follow_their_line_and_are_bounded() {
        let (ours, theirs) = UnixStream::pair().expect("there can be a pair");
        let serving = tokio::spawn(async move { serve(theirs, &Counts).await });
        let mut ours = BufReader::new(ours);
        assert_eq!(ask(&mut ours, 5, b"hello").await, Reply::Appended { offset: 5 });
        assert_eq!(ask(&mut ours, 0, b"").await, Reply::Appended { offset: 0 });
        let refused = ask(&mut ours, APPEND_BYTES_MAX + 1, b"").await;
        assert!(matches!(refused, Reply::Refused { exit: 64, .. }), "{refused:?}");
        serving.await.expect("it ends").expect("it ends well");
    }

    #[tokio::test]
    async fn only_so_many_are_served_at_once() {
        let folder = tempfile::tempdir().expect("there is room");
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).expect("it can be made");
        let accepting = tokio::spawn(accept(listener, Arc::new(Counts)));
        let mut served = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let stream = UnixStream::connect(&path).await.expect("it listens");
            let mut stream = BufReader::new(stream);
            ask(&mut stream, 1, b"x").await;
            served.push(stream);
        }
        let mut one_more = BufReader::new(UnixStream::connect(&path).await.expect("it listens"));
        let waiting = Duration::from_millis(50);
        let early = tokio::time::timeout(waiting, ask(&mut one_more, 0, b"")).await;
        assert!(early.is_err(), "there was no place");
        drop(served.pop());
        let reply: Option<Reply> = read(&mut one_more).await.expect("there is a place");
        assert_eq!(reply, Some(Reply::Appended { offset: 0 }));
        accepting.abort();
    }

    #[test]
    fn only_sockets_that_nobody_listens_at_are_swept() {
        let folder = tempfile::tempdir().expect("there is room");
        let old = |name: &str| {
            let path = folder.path().join(name);
            let listener = std::os::unix::net::UnixListener::bind(&path).expect("it can be made");
            let file = std::time::SystemTime::now() - 2 * SWEPT_AFTER;
            let time = rustix::fs::Timespec {
                tv_sec: file
                    .duration_since(std::time::UNIX_EPOCH)
                    .ok()
                    .and_then(|since| i64::try_from(since.as_secs()).ok())
                    .expect("it is after 1970"),
                tv_nsec: 0,
            };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty())
                .expect("it is ours");
            (path, listener)
        };
        let (alive, _listener) = old("alive.socket");
        let (dead, listener) = old("dead.socket");
        drop(listener);
        let young = folder.path().join("young.socket");
        drop(std::os::unix::net::UnixListener::bind(&young).expect("it can be made"));
        sweep(folder.path());
        assert!(alive.exists() && young.exists() && !dead.exists());
    }

    #[test]
    fn the_name_of_a_socket_is_short_whatever_the_lock() {
        let cluster = ClusterId::random().expect("there is randomness");
        let long = "../".repeat(80);
        let named = name(&cluster, &long, 7);
        assert_eq!(named.len(), "0123456789abcdef.socket".len());
        assert!(!named.contains('/') && named != name(&cluster, &long, 8));
    }
}
