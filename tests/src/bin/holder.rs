//! A client in a process of its own, so that a test can stop its time.
//!
//! `holder LOCK LEASE_MS` connects as the environment says, acquires the lock, and prints what happens,
//! one event a line: `held TOKEN`, `jeopardy`, `lost CAUSE`. For each line on its standard input it appends
//! that line to the file `journal` and prints `appended OFFSET` or `refused REASON`.
//!
//! An append is made with the token of the grant, whatever the library says meanwhile: that is what a
//! program does that looked at its lock before it was stopped.

use std::time::Duration;

use quorlock::client::{
    Client, ClientOptions, Done, FileAppend, FileName, Lock, Op, SessionState, Wait,
};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (name, lease) = arguments.next().zip(arguments.next()).ok_or("holder LOCK LEASE_MS")?;
    let lease = Duration::from_millis(lease.parse()?);
    let client = Client::connect(ClientOptions::from_env()?.lease(lease)).await?;
    let lock = client.acquire(&name, Wait::Forever).await?;
    println!("held {}", lock.token());

    let mut lines = BufReader::new(stdin()).lines();
    let mut states = client.watch();
    let mut told = false;
    loop {
        tokio::select! {
            // What the library has to say comes before anything that this program does.
            biased;
            report = lock.lost(), if !told => {
                told = true;
                println!("lost {}", report.cause);
            }
            Ok(()) = states.changed() => {
                if *states.borrow_and_update() == SessionState::Jeopardy {
                    println!("jeopardy");
                }
            }
            line = lines.next_line() => match line? {
                Some(line) => append(&client, &lock, line).await?,
                None => return Ok(()),
            },
        }
    }
}

async fn append(client: &Client, lock: &Lock, line: String) -> Result<(), Failure> {
    let append = FileAppend { file: FileName::new("journal")?, bytes: (line + "\n").into() };
    let op = Op::Append { lock: lock.name().clone(), token: lock.token(), append };
    match client.call(op).await {
        Ok(Done::Appended { offset }) => println!("appended {offset}"),
        Ok(other) => return Err(format!("an append that is {other:?}").into()),
        Err(error) => println!("refused {error}"),
    }
    Ok(())
}
