//! Acquire, append, release, again and again, on one lock; then a look whether each line is there once.
//!
//! ```text
//! cargo run -p quorlock --example cycle -- 1000
//! ```
//!
//! It finds the cluster as the command line does: by `QUORLOCK_ENDPOINTS` and its companions, or by
//! `.quorlock/client.toml`.

use std::error::Error;
use std::time::Instant;

use quorlock::client::{Client, ClientOptions, Consistency, Wait};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(100), |text| text.parse())?;
    let client = Client::connect(ClientOptions::from_env()?).await?;
    let session = client.session();
    println!("session {session}, {count} rounds");

    let (lock, file) = ("example/cycle", "example-cycle.log");
    let started = Instant::now();
    for round in 0..count {
        let lock = client.acquire(lock, Wait::Forever).await?;
        // The append carries the lock's token: if the lock were lost by now, it would be refused.
        lock.append(file, format!("session {session} round {round}\n")).await?;
        lock.release().await?;
    }
    let elapsed = started.elapsed();
    println!(
        "{count} rounds in {elapsed:.1?}, {:.1?} each",
        elapsed / u32::try_from(count.max(1))?
    );

    let bytes = client.read_file(file, .., Consistency::Linearizable)?.read_to_end().await?;
    let text = String::from_utf8(bytes)?;
    let prefix = format!("session {session} round ");
    let mine: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(&*prefix)).collect();
    let expected: Vec<String> = (0..count).map(|round| round.to_string()).collect();
    client.close().await?;
    if mine == expected {
        println!("every line is there, once, and in order");
        Ok(())
    } else {
        Err(format!("{} lines of this session are in {file}, not {count}", mine.len()).into())
    }
}
