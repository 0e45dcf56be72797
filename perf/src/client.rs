//! A minimal client of the director's control socket: JSON-RPC 2.0, one object a line, the server speaks first.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long an answer may take: a change of everything takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to `control.sock`.
#[derive(Debug)]
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl Client {
    /// Connects and hears the server's `hello`.
    pub(crate) fn connect(path: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot set a time limit")?;
        let mut client = Self { stream: BufReader::new(stream), next_id: 1 };
        client.text().context("the director did not say hello")?;
        Ok(client)
    }

    fn text(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).context("no answer on the control socket")? == 0 {
            bail!("the director closed the control socket");
        }
        Ok(line)
    }

    /// Calls a method.
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        let request = self.prepare(method, parameters);
        self.timed(&request).map(|(answer, _)| answer)
    }

    /// A request as it will be sent.
    pub(crate) fn prepare(&mut self, method: &str, parameters: &Value) -> Request {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": parameters });
        Request { id, method: method.to_owned(), line: format!("{request}\n") }
    }

    /// Sends a request; its result, and the time from the first byte that went to the last that came.
    pub(crate) fn timed(&mut self, request: &Request) -> Result<(Value, Duration)> {
        let start = Instant::now();
        self.stream
            .get_mut()
            .write_all(request.line.as_bytes())
            .context("cannot write to the control socket")?;
        loop {
            let line = self.text()?;
            let time = start.elapsed();
            let mut answer: Value = serde_json::from_str(&line).context("the director answered no JSON")?;
            // What has no id of ours is an event.
            if answer["id"].as_u64() == Some(request.id) {
                if let Some(error) = answer.get("error") {
                    bail!(Refused {
                        busy: error["data"]["name"] == "busy",
                        text: format!("the director refused {}: {error}", request.method),
                    });
                }
                return Ok((answer["result"].take(), time));
            }
        }
    }
}

/// What the director said no to.
#[derive(Debug)]
pub(crate) struct Refused {
    /// It may say yes in a moment: states wait for a worker.
    pub(crate) busy: bool,
    text: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

/// A request, ready to be sent.
#[derive(Debug)]
pub(crate) struct Request {
    id: u64,
    method: String,
    line: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child::TemporaryDirectory;
    use std::os::unix::net::UnixListener;

    #[test]
    fn answers_are_told_from_events_and_errors_from_results() {
        let directory = TemporaryDirectory::new().unwrap();
        let path = directory.join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            writeln!(stream.get_mut(), "{}", json!({ "method": "hello" })).unwrap();
            for reply in [
                json!({ "result": { "a": 1 } }),
                json!({ "error": { "code": -32002, "data": { "name": "busy" } } }),
            ] {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let request: Value = serde_json::from_str(&line).unwrap();
                writeln!(stream.get_mut(), "{}", json!({ "method": "event" })).unwrap();
                let mut reply = reply;
                reply["id"] = request["id"].clone();
                writeln!(stream.get_mut(), "{reply}").unwrap();
            }
        });
        let mut client = Client::connect(&path).unwrap();
        assert_eq!(client.call("stats", &json!({})).unwrap(), json!({ "a": 1 }));
        let error = client.call("other", &json!({})).unwrap_err();
        assert!(error.to_string().contains("refused other"));
        assert!(error.downcast_ref::<Refused>().is_some_and(|refused| refused.busy));
        server.join().unwrap();
        assert!(client.call("stats", &json!({})).is_err());
    }
}
