//! A broker of a few lines: MQTT 5, publishes of QoS 1 alone. Lengths and packet types are read by hand
//! (MQTT 5, sections 2.1 and 3.3).

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What was published: connection, topic, payload.
pub type Published = (usize, String, Vec<u8>);

pub struct Broker {
    pub address: String,
    pub seen: Arc<Mutex<Vec<Published>>>,
    /// What is sent to every client after its first publish, as whole packets.
    pub says: Arc<Mutex<Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Broker {
    /// Starts on a free port. The first connection is dropped when `drop_after` publishes came, of which only every
    /// second was acknowledged; later ones are served well, the acknowledgements of two publishes in reverse.
    pub async fn start(drop_after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let says = Arc::new(Mutex::new(Vec::new()));
        let (own, saying) = (Arc::clone(&seen), Arc::clone(&says));
        let task = tokio::spawn(async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                // An error is the end of the connection.
                let _ = serve(stream, connection, drop_after, &own, &saying).await;
            }
        });
        Self { address, seen, says, task }
    }
}

async fn packet(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    drop_after: usize,
    seen: &Mutex<Vec<Published>>,
    says: &Mutex<Vec<u8>>,
) -> std::io::Result<()> {
    let (mut count, mut held) = (0, None);
    loop {
        let (kind, body) = packet(&mut stream).await?;
        match kind >> 4 {
            1 => {
                assert_eq!((body[6], body[7] & 0b10), (5, 0b10), "version 5, a clean start");
                stream.write_all(&[0x20, 3, 0, 0, 0]).await?;
            }
            3 if kind & 0b110 == 0 => {
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
                seen.lock().unwrap().push((connection, topic, body[3 + length..].to_vec()));
            }
            3 => {
                assert_eq!(kind & 0b1110, 0b0010, "QoS 1, and no DUP: the sessions are clean");
                let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let topic = String::from_utf8(body[2..2 + length].to_vec()).unwrap();
                let id = [body[2 + length], body[3 + length]];
                assert_eq!(body[4 + length], 0, "no properties");
                seen.lock().unwrap().push((connection, topic, body[5 + length..].to_vec()));
                count += 1;
                if count == 1 {
                    let says = says.lock().unwrap().clone();
                    stream.write_all(&says).await?;
                }
                let ack = |id: [u8; 2]| [0x40, 2, id[0], id[1]];
                if connection == 0 {
                    if count % 2 == 0 {
                        stream.write_all(&ack(id)).await?;
                    }
                    if count == drop_after {
                        return Ok(());
                    }
                } else if count == 1 {
                    held = Some(id);
                } else {
                    stream.write_all(&ack(id)).await?;
                    if let Some(first) = held.take() {
                        stream.write_all(&ack(first)).await?;
                    }
                }
            }
            8 => stream.write_all(&[0x90, 5, body[0], body[1], 0, 0, 0]).await?,
            12 => stream.write_all(&[0xd0, 0]).await?,
            _ => return Ok(()),
        }
    }
}
