//! What stands between a host and its broker, and can cut it off: a TCP proxy that forwards, or does not.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

/// How often it is looked whether it is cut.
const LOOK: Duration = Duration::from_millis(10);

/// A proxy on a free port. While it is cut nothing goes through, and nobody is told: connections stay open, as they do
/// when a network fails. Afterwards they go on.
pub struct Proxy {
    address: SocketAddr,
    is_cut: Arc<AtomicBool>,
}

impl Proxy {
    /// Forwards to a port of this machine.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = Arc::clone(&is_cut);
        // It ends with the test's process, as the listener does.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let cut = Arc::clone(&cut);
                thread::spawn(move || {
                    wait_until_whole(&cut);
                    let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
                    let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { return };
                    let back = Arc::clone(&cut);
                    thread::spawn(move || forward(from_server, client, &back));
                    forward(from_client, server, &cut);
                });
            }
        });
        Ok(Self { address, is_cut })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Cuts it, or makes it whole again.
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Release);
    }
}

fn wait_until_whole(cut: &AtomicBool) {
    while cut.load(Ordering::Acquire) {
        thread::sleep(LOOK);
    }
}

/// Forwards until either side closes.
fn forward(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut buffer = vec![0; 64 << 10];
    let _ = from.set_read_timeout(Some(LOOK));
    loop {
        wait_until_whole(cut);
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => break,
        };
        wait_until_whole(cut);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // They are closed already when this fails.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
