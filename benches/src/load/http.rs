//! A client of one HTTP/1.1 connection that is kept alive: GET, and answers with a length. It blocks, so that a thread
//! of its own measures without a scheduler in between.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Error;

/// How long an answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// The largest answer that is read.
const MAX_BODY: usize = 64 << 20;

/// A connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Result<Self, Error> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The body at `path`; an error unless the answer is 200.
    pub fn get(&mut self, path: &str) -> Result<Vec<u8>, Error> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut status = String::new();
        self.stream.read_line(&mut status)?;
        let (mut length, mut chunked) = (None, false);
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse::<usize>()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.trim().eq_ignore_ascii_case("chunked");
            }
        }
        let body = if chunked {
            self.chunks()?
        } else {
            let length =
                length.filter(|length| *length <= MAX_BODY).ok_or("an answer without a fit length")?;
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body)?;
            body
        };
        if status.split_whitespace().nth(1) != Some("200") {
            return Err(format!("{path}: {}: {}", status.trim_end(), String::from_utf8_lossy(&body)).into());
        }
        Ok(body)
    }

    /// A body in chunks (RFC 9112 section 7.1), up to and with the empty one.
    fn chunks(&mut self) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        loop {
            let mut size = String::new();
            self.stream.read_line(&mut size)?;
            let size = usize::from_str_radix(size.trim_end(), 16)?;
            let from = body.len();
            if from + size > MAX_BODY {
                return Err("an answer that is too long".into());
            }
            body.resize(from + size + 2, 0);
            self.stream.read_exact(&mut body[from..])?;
            body.truncate(from + size);
            if size == 0 {
                return Ok(body);
            }
        }
    }
}
