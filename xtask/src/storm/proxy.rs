//! What stands between a worker and its server: connections that are reset, and a line that goes dark and comes back.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A line to a server.
pub struct Proxy {
    /// Where it is entered.
    pub address: String,
    cuts: watch::Sender<u64>,
    dark: watch::Sender<bool>,
}

impl Proxy {
    /// A line to `server`, which stands as long as the runtime.
    pub async fn to(server: &str) -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?.to_string();
        let (cuts, dark) = (watch::Sender::new(0), watch::Sender::new(false));
        let (cut, darkness) = (cuts.subscribe(), dark.subscribe());
        let server = server.to_owned();
        tokio::task::spawn_local(async move {
            while let Ok((from, _)) = listener.accept().await {
                let mut cut = cut.clone();
                cut.mark_unchanged();
                tokio::task::spawn_local(join(from, server.clone(), cut, darkness.clone()));
            }
        });
        Ok(Self { address, cuts, dark })
    }

    /// Resets all connections.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Lets nothing through for a while, without a word to either side.
    pub async fn darken(&self, time: Duration) {
        let _ = self.dark.send(true);
        tokio::time::sleep(time).await;
        let _ = self.dark.send(false);
    }
}

async fn join(mut from: TcpStream, server: String, mut cut: watch::Receiver<u64>, dark: watch::Receiver<bool>) {
    let reset = |stream: &TcpStream| {
        let _ = stream.set_zero_linger();
    };
    let Ok(mut to) = TcpStream::connect(&server).await else { return reset(&from) };
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let is_cut = {
        let ((from_read, from_write), (to_read, to_write)) = (from.split(), to.split());
        tokio::select! {
            () = pump(from_read, to_write, dark.clone()) => false,
            () = pump(to_read, from_write, dark) => false,
            _ = cut.changed() => true,
        }
    };
    if is_cut {
        reset(&from);
        reset(&to);
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut dark: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if dark.wait_for(|dark| !dark).await.is_err() || count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
