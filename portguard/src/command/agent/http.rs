//! As much of HTTP/1.1 as a scrape needs: one GET a connection, bounded in size, in time and in number.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// The longest request that is read.
const LIMIT: usize = 8 * 1024;
/// How long a peer may take to ask: a scraper asks at once.
const TO_ASK: Duration = Duration::from_secs(3);
/// How long a peer may take altogether.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are open at a time: beyond, whoever has been there longest makes room.
const CONNECTIONS: usize = 64;

/// The connections that are open, so that peers who say nothing keep nobody else out.
#[derive(Debug, Default)]
pub(super) struct Room {
    open: VecDeque<AbortHandle>,
}

impl Room {
    /// Serves a peer in a task of its own.
    pub(super) fn serve(
        &mut self,
        peer: TcpStream,
        answer: impl FnOnce(&Request) -> Response + Send + 'static,
    ) {
        self.open.retain(|task| !task.is_finished());
        if self.open.len() >= CONNECTIONS
            && let Some(longest) = self.open.pop_front()
        {
            longest.abort();
        }
        self.open
            .push_back(tokio::spawn(serve(peer, answer)).abort_handle());
    }
}

/// What was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Path, without the query.
    pub(super) path: String,
    /// The `Accept` header; empty if there was none.
    pub(super) accept: String,
    /// `HEAD`: the answer has no body.
    pub(super) is_head: bool,
}

/// What is answered.
pub(super) struct Response {
    /// Status line.
    pub(super) status: &'static str,
    /// Media type.
    pub(super) media_type: &'static str,
    /// Body.
    pub(super) body: String,
}

impl Response {
    /// Text.
    pub(super) const fn plain(status: &'static str, body: String) -> Self {
        Self {
            status,
            media_type: "text/plain; charset=utf-8",
            body,
        }
    }
}

/// Reads one request, answers, and closes. What goes wrong with a peer is the peer's affair.
async fn serve(mut peer: TcpStream, answer: impl FnOnce(&Request) -> Response) {
    let _ = tokio::time::timeout(PATIENCE, async {
        let head = tokio::time::timeout(TO_ASK, read(&mut peer)).await??;
        let (response, is_head) = match parse(&head) {
            Ok(request) => (answer(&request), request.is_head),
            Err(status) => (Response::plain(status, format!("{status}\n")), false),
        };
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
            response.status,
            response.media_type,
            response.body.len()
        );
        peer.write_all(head.as_bytes()).await?;
        if !is_head {
            peer.write_all(response.body.as_bytes()).await?;
        }
        peer.shutdown().await?;
        Ok::<_, std::io::Error>(())
    })
    .await;
}

/// Reads up to the empty line.
async fn read(peer: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut part = [0; 1024];
    while bytes.len() < LIMIT {
        let count = peer.read(&mut part).await?;
        bytes.extend_from_slice(part.get(..count).unwrap_or_default());
        if count == 0 || bytes.windows(4).any(|window| window == b"\r\n\r\n") {
            break;
        }
    }
    Ok(bytes)
}

fn parse(head: &[u8]) -> Result<Request, &'static str> {
    const BAD: &str = "400 Bad Request";
    let text = std::str::from_utf8(head).map_err(|_not_text| BAD)?;
    let (head, _) = text.split_once("\r\n\r\n").ok_or(BAD)?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(BAD);
    };
    if !version.starts_with("HTTP/1.") {
        return Err(BAD);
    }
    if !matches!(method, "GET" | "HEAD") {
        return Err("405 Method Not Allowed");
    }
    let accept = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("accept"))
        .map_or("", |(_, value)| value.trim());
    Ok(Request {
        path: target.split('?').next().unwrap_or_default().to_owned(),
        accept: accept.to_owned(),
        is_head: method == "HEAD",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let scrape = b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\naccept: text/plain\r\n\r\n";
        assert_eq!(
            parse(scrape),
            Ok(Request {
                path: "/metrics".to_owned(),
                accept: "text/plain".to_owned(),
                is_head: false
            })
        );
        assert!(parse(b"HEAD / HTTP/1.0\r\n\r\n").is_ok_and(|request| request.is_head));
        for (bytes, wanted) in [
            (&b"POST / HTTP/1.1\r\n\r\n"[..], "405 Method Not Allowed"),
            (b"GET / HTTP/2\r\n\r\n", "400 Bad Request"),
            (b"GET\r\n\r\n", "400 Bad Request"),
            (b"GET / HTTP/1.1\r\n", "400 Bad Request"),
            (b"\xff\r\n\r\n", "400 Bad Request"),
            (b"", "400 Bad Request"),
        ] {
            assert_eq!(parse(bytes), Err(wanted));
        }
    }
}
