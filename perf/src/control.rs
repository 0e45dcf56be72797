//! A minimal client of the director's control socket: JSON-RPC 2.0, one object a line, the server speaks first.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

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
        client.line().context("the director did not say hello")?;
        Ok(client)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).context("no answer on the control socket")? == 0 {
            bail!("the director closed the control socket");
        }
        serde_json::from_str(&line).with_context(|| format!("the director answered `{}`", line.trim_end()))
    }

    /// Calls a method without parameters.
    pub(crate) fn call(&mut self, method: &str) -> Result<Value> {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method });
        writeln!(self.stream.get_mut(), "{request}").context("cannot write to the control socket")?;
        loop {
            // What has no id of ours is an event.
            let mut answer = self.line()?;
            if answer["id"].as_u64() == Some(id) {
                if let Some(error) = answer.get("error") {
                    bail!("the director refused {method}: {error}");
                }
                return Ok(answer["result"].take());
            }
        }
    }
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
            for reply in [json!({ "result": { "a": 1 } }), json!({ "error": { "code": -32601 } })] {
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
        assert_eq!(client.call("stats").unwrap(), json!({ "a": 1 }));
        assert!(client.call("other").unwrap_err().to_string().contains("refused other"));
        server.join().unwrap();
        assert!(client.call("stats").is_err());
    }
}
