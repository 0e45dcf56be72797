//! A blocking client of the control socket, for `uvsctl` and `uvs-perf`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::desired::{Change, ServiceKey};
use crate::protocol::{
    Changed, Configuration, ConnectionPage, ConnectionQuery, CountersZero, DestinationList, EventPage,
    EventQuery, Hello, Request, ServicePage, ServicePageQuery, ServiceQuery, Stats, StatsQuery, Status,
    Zeroed,
};

/// An answer longer than this is not the director's.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How long an answer may take; a change that waits for the workers takes milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("cannot connect to {}: {error}; {}", path.display(), connect_mend(error))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the director broke: {0}")]
    Broken(#[from] io::Error),
    /// The director, or whoever is at the socket, did not speak the protocol.
    #[error("not an answer of uvsd: {0}")]
    Unexpected(String),
    /// The director refused.
    #[error("{message}")]
    Refused {
        /// JSON-RPC's code.
        code: i64,
        /// A sentence.
        message: String,
        /// The stable name, such as `exists`.
        name: String,
        /// The kernel's error number for the same, such as `EEXIST`.
        errno: Option<String>,
    },
}

fn connect_mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "is uvsd running? Another directory than /run/uvs is named by --socket or UVS_CONTROL"
        }
        io::ErrorKind::PermissionDenied => "run uvsctl as root or as a member of the control socket's group",
        _ => "see the director's log",
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    params: Value,
    #[serde(default)]
    result: Option<Value>,
    #[serde(default)]
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct ErrorObject {
    code: i64,
    message: String,
    #[serde(default)]
    data: Value,
}

impl From<ErrorObject> for ClientError {
    fn from(error: ErrorObject) -> Self {
        let text = |key: &str| error.data.get(key).and_then(Value::as_str).map(str::to_owned);
        let (name, errno) = (text("name").unwrap_or_default(), text("errno"));
        Self::Refused { code: error.code, message: error.message, name, errno }
    }
}

/// A connection to the director.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
    hello: Hello,
    last_id: u64,
}

impl Client {
    /// Connects and reads the director's greeting.
    ///
    /// # Errors
    ///
    /// Nobody listens, the director is full, or it is not a director.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let refused = |error| ClientError::Connect { path: path.to_owned(), error };
        let writer = UnixStream::connect(path).map_err(refused)?;
        writer.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        writer.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        let mut reader = BufReader::new(writer.try_clone()?);
        let answer = read_answer(&mut reader)?;
        if let Some(error) = answer.error {
            return Err(error.into());
        }
        if answer.method.as_deref() != Some("hello") {
            return Err(ClientError::Unexpected("its first line is not `hello`".into()));
        }
        let hello =
            Hello::deserialize(answer.params).map_err(|error| ClientError::Unexpected(error.to_string()))?;
        Ok(Self { reader, writer, hello, last_id: 0 })
    }

    /// The director's greeting.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    ///
    /// The director refused, or the connection broke.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        let unexpected = |error: serde_json::Error| ClientError::Unexpected(error.to_string());
        self.last_id += 1;
        let mut line = request.to_line(self.last_id).map_err(unexpected)?;
        line.push('\n');
        // The server may have said why it closes before it did: its word is worth more than EPIPE.
        let written = self.writer.write_all(line.as_bytes());
        let answer = match (read_answer(&mut self.reader), written) {
            (Ok(answer), _) => answer,
            (Err(_), Err(error)) | (Err(ClientError::Broken(error)), Ok(())) => return Err(error.into()),
            (Err(error), Ok(())) => return Err(error),
        };
        if let Some(error) = answer.error {
            return Err(error.into());
        }
        if answer.id != self.last_id {
            return Err(ClientError::Unexpected(format!(
                "it answers request {}, not {}",
                answer.id, self.last_id
            )));
        }
        T::deserialize(answer.result.unwrap_or_default()).map_err(unexpected)
    }

    /// `status`
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn status(&mut self) -> Result<Status, ClientError> {
        self.call(&Request::Status)
    }

    /// `stats`
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn stats(&mut self) -> Result<Stats, ClientError> {
        self.call(&Request::Stats(StatsQuery::default()))
    }

    /// Makes a change; `wait` answers once every worker uses it.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn change(&mut self, change: Change, wait: bool) -> Result<Changed, ClientError> {
        self.call(&Request::Change { change: Box::new(change), wait })
    }

    /// Counts from 0 from now on.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn zero(&mut self, zero: CountersZero) -> Result<Zeroed, ClientError> {
        self.call(&Request::CountersZero(zero))
    }

    /// One page of services.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn services(&mut self, query: ServicePageQuery) -> Result<ServicePage, ClientError> {
        self.call(&Request::ServiceList(query))
    }

    /// Destinations of a service.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn destinations(&mut self, service: ServiceKey) -> Result<DestinationList, ClientError> {
        self.call(&Request::DestinationList(ServiceQuery { service }))
    }

    /// All services as they would be written.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn configuration(&mut self) -> Result<Configuration, ClientError> {
        self.call(&Request::ConfigGet)
    }

    /// One page of connections.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn connections(&mut self, query: ConnectionQuery) -> Result<ConnectionPage, ClientError> {
        self.call(&Request::ConnectionList(query))
    }

    /// Events after a sequence number.
    ///
    /// # Errors
    ///
    /// As [`Self::call`].
    pub fn events(&mut self, query: EventQuery) -> Result<EventPage, ClientError> {
        self.call(&Request::EventsList(query))
    }
}

fn read_answer(reader: &mut BufReader<UnixStream>) -> Result<Answer, ClientError> {
    let mut line = Vec::new();
    reader.by_ref().take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    serde_json::from_slice(&line).map_err(|error| ClientError::Unexpected(error.to_string()))
}
