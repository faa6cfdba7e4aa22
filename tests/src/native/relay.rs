//! A network that a test has in its hands: passes datagrams on, or does not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// Stands between one client and one node.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    open: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Relay {
    /// A relay to `target`, which passes everything on.
    pub async fn to(target: SocketAddr) -> Self {
        let bind = || UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0));
        let front = bind().await.expect("there are ports");
        let back = bind().await.expect("there are ports");
        let address = front.local_addr().expect("it is bound");
        let open = Arc::new(AtomicBool::new(true));
        let task = tokio::spawn(pass(front, back, target, Arc::clone(&open)));
        Self { address, open, task }
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, everything is lost.
    pub fn cut(&self) {
        self.open.store(false, Ordering::Relaxed);
    }

    /// From now on, everything is passed on again.
    pub fn heal(&self) {
        self.open.store(true, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(front: UdpSocket, back: UdpSocket, target: SocketAddr, open: Arc<AtomicBool>) {
    let (mut to_target, mut to_client) = (vec![0; 65_536], vec![0; 65_536]);
    let mut client = None;
    loop {
        // What cannot be sent is lost, as on any network.
        tokio::select! {
            Ok((length, from)) = front.recv_from(&mut to_target) => {
                client = Some(from);
                if open.load(Ordering::Relaxed) {
                    drop(back.send_to(&to_target[..length], target).await);
                }
            }
            Ok((length, _from)) = back.recv_from(&mut to_client) => {
                if let Some(client) = client && open.load(Ordering::Relaxed) {
                    drop(front.send_to(&to_client[..length], client).await);
                }
            }
        }
    }
}
