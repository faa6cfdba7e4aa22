//! Two clients that want one lock: they get it in turn, and each hold has a higher token.
//!
//! ```text
//! cargo run -p quorlock --example two_clients
//! ```

use std::error::Error;
use std::time::Duration;

use quorlock::client::{AcquireError, Client, ClientOptions, FencingToken, Wait};

const LOCK: &str = "example/two";
const ROUNDS: u32 = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = ClientOptions::from_env()?;
    // One session each: a session is one holder, however many tasks use it.
    let (ada, bob) = tokio::try_join!(Client::connect(options.clone()), Client::connect(options))?;

    let held = ada.acquire(LOCK, Wait::Forever).await?;
    println!("ada holds {LOCK} with token {}", held.token());
    match bob.acquire(LOCK, Wait::Try).await {
        Err(AcquireError::NotObtained { .. }) => println!("bob does not get it without waiting"),
        Ok(_) => return Err("two hold one lock".into()),
        Err(error) => return Err(error.into()),
    }
    held.release().await?;

    // From here on both ask again as soon as they have released: the queue makes them take turns.
    let (of_ada, of_bob) = tokio::try_join!(take_turns("ada", &ada), take_turns("bob", &bob))?;
    let mut all: Vec<FencingToken> = [of_ada, of_bob].concat();
    all.sort_unstable();
    all.dedup();
    if all.len() != 2 * usize::try_from(ROUNDS)? {
        return Err("two holds had one token".into());
    }
    println!("{} holds, and no token came twice", all.len());
    tokio::try_join!(ada.close(), bob.close())?;
    Ok(())
}

async fn take_turns(name: &str, client: &Client) -> Result<Vec<FencingToken>, Box<dyn Error>> {
    let mut tokens = Vec::new();
    for _ in 0..ROUNDS {
        let lock = client.acquire(LOCK, Wait::Forever).await?;
        let before = lock.predecessor().map(|token| format!(", after {token}")).unwrap_or_default();
        println!("{name} holds it with token {}{before}", lock.token());
        tokens.push(lock.token());
        tokio::time::sleep(Duration::from_millis(20)).await;
        lock.release().await?;
    }
    Ok(tokens)
}
