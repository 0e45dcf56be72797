//! One client: greet, read a line, answer it, again.

use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::line::{LineError, Lines, Patience, write_all};
use super::{Backend, Options, Peer};
use crate::protocol::{Fault, FaultKind, Hello, Role, parse};

/// A notification or an answer, with its line feed.
fn line(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// An error answer as a line.
pub(super) fn fault_line(id: &Value, fault: &Fault) -> Vec<u8> {
    line(&json!({ "jsonrpc": "2.0", "id": id, "error": fault.to_json() }))
}

/// Serves a client until it leaves, breaks a rule or the stream is shut down.
pub(super) fn serve(stream: &UnixStream, peer: Peer, options: &Options, backend: &dyn Backend) {
    let hello = Hello {
        version: options.version.clone(),
        capabilities: options.capabilities.clone(),
        revision: backend.revision(),
        role: peer.role,
    };
    let greeting = line(&json!({ "jsonrpc": "2.0", "method": "hello", "params": hello }));
    if write_all(stream, &greeting, options.write_timeout).is_err() {
        return;
    }
    let limit = match peer.role {
        Role::Operator => options.operator_line_bytes,
        Role::Viewer => options.viewer_line_bytes,
    };
    let patience = Patience { idle: options.idle_timeout, line: options.line_timeout };
    let mut lines = Lines::new(stream, limit, patience);
    loop {
        let last_word = match lines.next() {
            Ok(request) => {
                let answer = answer(&request, peer, backend);
                if write_all(stream, &answer, options.write_timeout).is_err() {
                    return;
                }
                continue;
            }
            Err(LineError::Closed) => return,
            Err(LineError::Io(error)) => {
                tracing::debug!(%error, pid = peer.pid, "control socket: a client's connection broke");
                return;
            }
            Err(LineError::TooLong) => {
                Fault::new(FaultKind::LineTooLong, format!("a line has at most {limit} bytes; goodbye"))
            }
            Err(LineError::TimedOut) => {
                Fault::new(FaultKind::Idle, "nothing was asked for too long; goodbye")
            }
        };
        let _client_may_be_gone =
            write_all(stream, &fault_line(&Value::Null, &last_word), options.write_timeout);
        return;
    }
}

fn answer(request: &[u8], peer: Peer, backend: &dyn Backend) -> Vec<u8> {
    let (id, request) = parse(request);
    let result = request.and_then(|request| {
        if request.changes() && peer.role != Role::Operator {
            let message = format!(
                "uid {} may look but not change; `{}` takes root or a member of the control socket's group",
                peer.uid,
                request.method()
            );
            return Err(Fault::new(FaultKind::Forbidden, message));
        }
        backend.call(request, peer)
    });
    let result = result.and_then(|response| {
        serde_json::to_vec(&response).map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))
    });
    match result {
        // Put together by hand: a listing of 10 MB need not become a tree of values first.
        Ok(result) => {
            let mut bytes = Vec::with_capacity(result.len() + 64);
            bytes.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
            bytes.extend_from_slice(id.to_string().as_bytes());
            bytes.extend_from_slice(b",\"result\":");
            bytes.extend_from_slice(&result);
            bytes.extend_from_slice(b"}\n");
            bytes
        }
        Err(fault) => fault_line(&id, &fault),
    }
}
