//! Leader election among workers: whoever holds the lock leads.
//!
//! ```text
//! cargo run -p quorlock --example election        # in several terminals; Ctrl-C one of them
//! ```
//!
//! Each worker campaigns by acquiring the lock, leads until it has done its share or the lock is lost,
//! and steps down. When a leader dies without a word, the next one follows at the end of its lease.

use std::error::Error;
use std::time::Duration;

use quorlock::client::{CallError, Client, ClientOptions, Lock, Rejection, Wait};

const LOCK: &str = "example/leader";
const FILE: &str = "example-leaders.log";
/// How many pieces of work one leader does before it gives others a chance.
const TERM: u32 = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let rounds: u32 = std::env::args().nth(1).map_or(Ok(3), |text| text.parse())?;
    // A short lease, since followers wait for it when a leader dies.
    let options = ClientOptions::from_env()?.lease(Duration::from_secs(3));
    let client = Client::connect(options).await?;
    for _ in 0..rounds {
        println!("campaigning");
        let lock = client.acquire(LOCK, Wait::Forever).await?;
        println!("leading with token {}", lock.token());
        tokio::select! {
            result = lead(&lock) => match result {
                Ok(()) => {
                    println!("stepping down");
                    lock.release().await?;
                }
                // The lock is lost, and this append did nothing. The report below says why.
                Err(CallError::Rejected(Rejection::NotHolder { .. })) => {
                    println!("deposed: {}", lock.lost().await);
                }
                Err(error) => return Err(error.into()),
            },
            report = lock.lost() => println!("deposed: {report}"),
        }
    }
    client.close().await?;
    Ok(())
}

/// What only a leader may do. Each step is fenced: a leader that was deposed without noticing cannot
/// do it any more.
async fn lead(lock: &Lock) -> Result<(), CallError> {
    for step in 0..TERM {
        lock.append(FILE, format!("leader {} step {step}\n", lock.token())).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
