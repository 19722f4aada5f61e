//! A proxy that stands for the distance of a server: it delays all bytes in both directions.
//!
//! It has threads of its own, as the timer of the runtime is no finer than a millisecond.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Forwards connections to a server; ends with this process.
pub(crate) struct DelayProxy {
    pub(crate) address: String,
}

impl DelayProxy {
    /// Listens in front of the server at `host:port`. Each direction takes half of the round trip; bytes that follow one
    /// another are delayed at the same time.
    pub(crate) fn start(server: &str, round_trip: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, server) = (listener.local_addr()?.to_string(), server.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if let Err(error) =
                    client.map_err(Into::into).and_then(|client| forward(client, &server, round_trip / 2))
                {
                    eprintln!("the proxy of {server}: {error}");
                }
            }
        });
        Ok(Self { address })
    }
}

/// Forwards both directions of a connection.
fn forward(client: TcpStream, server: &str, delay: Duration) -> anyhow::Result<()> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        let (arrived, arrivals) = mpsc::channel();
        std::thread::spawn(move || read(from, &arrived));
        std::thread::spawn(move || write(to, &arrivals, delay));
    }
    Ok(())
}

/// Reads to the end, with the time at which each piece arrived.
fn read(mut from: TcpStream, arrived: &mpsc::Sender<(Instant, Vec<u8>)>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        if arrived.send((Instant::now(), bytes[..length].to_vec())).is_err() {
            break;
        }
    }
}

/// Writes each piece when it is due, and then ends this direction.
fn write(mut to: TcpStream, arrivals: &mpsc::Receiver<(Instant, Vec<u8>)>, delay: Duration) {
    for (arrived, bytes) in arrivals {
        std::thread::sleep((arrived + delay).saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // The other side may have ended it already.
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_pass_in_order_both_ways_and_no_earlier_than_due() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = DelayProxy::start(&server.local_addr().unwrap().to_string(), Duration::from_millis(4)).unwrap();
        let mut client = TcpStream::connect(&proxy.address).unwrap();
        let echo = std::thread::spawn(move || {
            let (mut connection, _) = server.accept().unwrap();
            let mut received = Vec::new();
            connection.read_to_end(&mut received).unwrap();
            connection.write_all(&received).unwrap();
        });
        let began = Instant::now();
        for number in 0..100_u8 {
            client.write_all(&[number]).unwrap();
        }
        client.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert!(began.elapsed() >= Duration::from_millis(4));
        assert_eq!(received, (0..100).collect::<Vec<u8>>());
        echo.join().unwrap();
    }
}
