//! Requests: from a line of bytes to a typed value, or to a fault that says where it went wrong.

use std::net::IpAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Fault, FaultKind};
use crate::desired::{Change, ServiceKey};

/// Most items of one page.
pub const PAGE_MAX: u32 = 1_000;
/// Longest `id` that is a string, in bytes: it is sent back.
const ID_BYTES_MAX: usize = 128;

/// A method, as the documentation lists it.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// Whether it changes something, which takes an operator.
    pub changes: bool,
}

const fn look(name: &'static str) -> Method {
    Method { name, changes: false }
}

const fn change(name: &'static str) -> Method {
    Method { name, changes: true }
}

/// Every method there is.
pub const METHODS: &[Method] = &[
    look("status"),
    look("stats"),
    look("service.list"),
    change("service.add"),
    change("service.edit"),
    change("service.delete"),
    change("service.flush"),
    look("destination.list"),
    change("destination.add"),
    change("destination.edit"),
    change("destination.delete"),
    change("timeouts.set"),
    change("settings.set"),
    change("mark.add"),
    change("mark.delete"),
    change("counters.zero"),
    change("config.apply"),
    look("config.get"),
    look("connection.list"),
    look("events.list"),
];

/// Parameters of `service.list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServicePageQuery {
    /// Only this one, if it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceKey>,
    /// Services after this one; absent: from the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ServiceKey>,
    /// At most this many, 1 to [`PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Parameters of `stats`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsQuery {
    /// Every destination's counters too; without them the answer stays short, however many there are.
    #[serde(default = "yes")]
    pub destinations: bool,
}

const fn yes() -> bool {
    true
}

impl Default for StatsQuery {
    fn default() -> Self {
        Self { destinations: yes() }
    }
}

/// Parameters of `destination.list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceQuery {
    /// Whose destinations.
    pub service: ServiceKey,
}

/// Parameters of `counters.zero`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountersZero {
    /// Whose counters, its destinations' included; absent: all, and the totals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceKey>,
}

/// Parameters of `connection.list`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionQuery {
    /// `next` of the page before; absent: the first page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
    /// At most this many, 1 to [`PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only this service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceKey>,
    /// Only this client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
}

/// Parameters of `events.list`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Events with a greater sequence number.
    #[serde(default)]
    pub since: u64,
    /// At most this many, 1 to [`PAGE_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// A request that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `status`
    Status,
    /// `stats`
    Stats(StatsQuery),
    /// `service.list`
    ServiceList(ServicePageQuery),
    /// `destination.list`
    DestinationList(ServiceQuery),
    /// `config.get`
    ConfigGet,
    /// `connection.list`
    ConnectionList(ConnectionQuery),
    /// `events.list`
    EventsList(EventQuery),
    /// `counters.zero`
    CountersZero(CountersZero),
    /// Every method that changes the desired state.
    Change {
        /// What.
        change: Box<Change>,
        /// Answer once every worker uses the new state, not as soon as it is published.
        wait: bool,
    },
}

impl Request {
    /// The method it is called by.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Stats(_) => "stats",
            Self::ServiceList(_) => "service.list",
            Self::DestinationList(_) => "destination.list",
            Self::ConfigGet => "config.get",
            Self::ConnectionList(_) => "connection.list",
            Self::EventsList(_) => "events.list",
            Self::CountersZero(_) => "counters.zero",
            Self::Change { change, .. } => match **change {
                Change::ServiceAdd(_) => "service.add",
                Change::ServiceEdit(_) => "service.edit",
                Change::ServiceDelete(_) => "service.delete",
                Change::ServiceFlush(_) => "service.flush",
                Change::DestinationAdd(_) => "destination.add",
                Change::DestinationEdit(_) => "destination.edit",
                Change::DestinationDelete(_) => "destination.delete",
                Change::TimeoutsSet(_) => "timeouts.set",
                Change::SettingsSet(_) => "settings.set",
                Change::MarkRuleAdd(_) => "mark.add",
                Change::MarkRuleDelete(_) => "mark.delete",
                Change::Apply(_) => "config.apply",
            },
        }
    }

    /// Whether it takes an operator.
    #[must_use]
    pub fn changes(&self) -> bool {
        matches!(self, Self::Change { .. } | Self::CountersZero(_))
    }

    /// The line a client sends, without its line feed.
    ///
    /// # Errors
    ///
    /// None in practice: all parameters have text keys.
    pub fn to_line(&self, id: u64) -> serde_json::Result<String> {
        let params = match self {
            Self::Status | Self::ConfigGet => Value::Object(Map::new()),
            Self::Stats(query) => serde_json::to_value(query)?,
            Self::ServiceList(query) => serde_json::to_value(query)?,
            Self::DestinationList(query) => serde_json::to_value(query)?,
            Self::ConnectionList(query) => serde_json::to_value(query)?,
            Self::EventsList(query) => serde_json::to_value(query)?,
            Self::CountersZero(query) => serde_json::to_value(query)?,
            Self::Change { change, wait } => {
                let mut params = serde_json::to_value(change)?["params"].take();
                params["wait"] = (*wait).into();
                params
            }
        };
        serde_json::to_string(
            &serde_json::json!({ "jsonrpc": "2.0", "id": id, "method": self.method(), "params": params }),
        )
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    jsonrpc: String,
    #[serde(default)]
    id: Value,
    method: String,
    #[serde(default)]
    params: Option<Value>,
}

/// Reads one line, without its line feed. The id comes back in any case, `null` where it could not be read.
pub fn parse(line: &[u8]) -> (Value, Result<Request, Fault>) {
    // Serde would also take a struct's fields as a list, which JSON-RPC calls a batch.
    if line.trim_ascii_start().starts_with(b"[") {
        let fault =
            Fault::new(FaultKind::InvalidRequest, "batches are not supported; send one object per line");
        return (Value::Null, Err(fault));
    }
    let envelope = match serde_json::from_slice::<Envelope>(line) {
        Ok(envelope) => envelope,
        Err(error) => return (Value::Null, Err(not_an_envelope(&error))),
    };
    let good_id = match &envelope.id {
        Value::Number(_) => true,
        Value::String(text) => text.len() <= ID_BYTES_MAX,
        _ => false,
    };
    if !good_id {
        let message = format!("a request needs an id: a number, or a string of at most {ID_BYTES_MAX} bytes");
        return (Value::Null, Err(Fault::new(FaultKind::InvalidRequest, message)));
    }
    if envelope.jsonrpc != "2.0" {
        let fault = Fault::new(FaultKind::InvalidRequest, "\"jsonrpc\" must be \"2.0\"");
        return (envelope.id, Err(fault));
    }
    let request = typed(&envelope.method, envelope.params);
    (envelope.id, request)
}

fn not_an_envelope(error: &serde_json::Error) -> Fault {
    use serde_json::error::Category;
    let kind = match error.classify() {
        Category::Data => FaultKind::InvalidRequest,
        Category::Io | Category::Syntax | Category::Eof => FaultKind::Parse,
    };
    let mut fault = Fault::new(kind, format!("not a request: {error}"));
    fault.column = Some(error.column());
    fault
}

fn typed(method: &str, params: Option<Value>) -> Result<Request, Fault> {
    let mut params = match params {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params,
        Some(_) => {
            return Err(Fault::new(
                FaultKind::InvalidParameters,
                "\"params\" must be an object with named parameters",
            ));
        }
    };
    let Some(known) = METHODS.iter().find(|known| known.name == method) else {
        let names = METHODS.iter().map(|known| known.name).collect::<Vec<_>>().join(", ");
        let shown: String = method.chars().take(64).collect();
        return Err(Fault::new(
            FaultKind::UnknownMethod,
            format!("there is no method `{shown}`; there are {names}"),
        ));
    };
    if known.name == "counters.zero" {
        return read(params).map(Request::CountersZero);
    }
    if known.changes {
        let wait = match params.remove("wait") {
            None => false,
            Some(Value::Bool(wait)) => wait,
            Some(_) => return Err(Fault::new(FaultKind::InvalidParameters, "`wait` must be true or false")),
        };
        let change = match known.name {
            "service.add" => Change::ServiceAdd(read(params)?),
            "service.edit" => Change::ServiceEdit(read(params)?),
            "service.delete" => Change::ServiceDelete(read(params)?),
            "service.flush" => Change::ServiceFlush(read(params)?),
            "timeouts.set" => Change::TimeoutsSet(read(params)?),
            "settings.set" => Change::SettingsSet(read(params)?),
            "mark.add" => Change::MarkRuleAdd(read(params)?),
            "mark.delete" => Change::MarkRuleDelete(read(params)?),
            "destination.add" => Change::DestinationAdd(read(params)?),
            "destination.edit" => Change::DestinationEdit(read(params)?),
            "destination.delete" => Change::DestinationDelete(read(params)?),
            _ => Change::Apply(read(params)?),
        };
        return Ok(Request::Change { change: Box::new(change), wait });
    }
    match known.name {
        "stats" => read(params).map(Request::Stats),
        "service.list" => read(params).and_then(|query: ServicePageQuery| {
            page(query.limit)?;
            Ok(Request::ServiceList(query))
        }),
        "destination.list" => read(params).map(Request::DestinationList),
        "connection.list" => read(params).and_then(|query: ConnectionQuery| {
            page(query.limit)?;
            Ok(Request::ConnectionList(query))
        }),
        "events.list" => read(params).and_then(|query: EventQuery| {
            page(query.limit)?;
            Ok(Request::EventsList(query))
        }),
        name => match params.keys().next() {
            Some(unknown) => Err(Fault::new(
                FaultKind::InvalidParameters,
                format!("unknown field `{unknown}`; {name} takes none"),
            )),
            None => Ok(match name {
                "status" => Request::Status,
                _ => Request::ConfigGet,
            }),
        },
    }
}

fn read<T: DeserializeOwned>(params: Map<String, Value>) -> Result<T, Fault> {
    T::deserialize(Value::Object(params))
        .map_err(|error| Fault::new(FaultKind::InvalidParameters, error.to_string()))
}

fn page(limit: Option<u32>) -> Result<(), Fault> {
    match limit {
        Some(limit) if limit == 0 || limit > PAGE_MAX => {
            Err(Fault::new(FaultKind::InvalidParameters, format!("`limit` must be 1 to {PAGE_MAX}")))
        }
        _ => Ok(()),
    }
}
