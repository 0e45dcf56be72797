//! Commands that this program stands in for: a line's `ip` is this very program, which asks the replay by a socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::sandbox::STAND_INS;

/// Names the replay's socket in a line's environment.
pub const SOCKET: &str = "UVS_REPLAY_SOCKET";
/// Bytes of a request at most.
const REQUEST_MAX: u64 = 64 * 1024;

/// A command, as its program was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// One of [`STAND_INS`].
    pub command: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// What the program is to say and how it is to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Exit status.
    pub rc: u8,
    /// What it prints.
    pub text: String,
}

/// Carries commands out.
pub type Play = dyn Fn(&Asked) -> Answer + Send + Sync;

/// The command that this process was started as, if it is one of [`STAND_INS`].
#[must_use]
pub fn called() -> Option<Asked> {
    let mut words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let program = words.next()?;
    let name = Path::new(&program).file_name()?.to_str()?;
    let command = STAND_INS.into_iter().find(|known| *known == name)?.to_owned();
    Some(Asked { command, arguments: words.collect() })
}

/// Asks the replay, prints its answer and returns the exit status.
#[must_use]
pub fn act(asked: &Asked) -> u8 {
    match ask(asked) {
        Ok(Answer { rc: 0, text }) => {
            print!("{text}");
            0
        }
        Ok(Answer { rc, text }) => {
            eprint!("{text}");
            rc
        }
        Err(error) => {
            eprintln!("{}: cannot ask uvs-replay: {error}", asked.command);
            2
        }
    }
}

fn ask(asked: &Asked) -> std::io::Result<Answer> {
    let socket =
        std::env::var_os(SOCKET).ok_or_else(|| std::io::Error::other(format!("{SOCKET} is not set")))?;
    let mut stream = UnixStream::connect(Path::new(&socket))?;
    writeln!(stream, "{}", serde_json::to_string(asked)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Answers such programs from a thread of its own, as long as this process lives.
///
/// # Errors
/// The socket cannot be made.
pub fn serve(socket: &Path, play: Arc<Play>) -> std::io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    std::thread::Builder::new().name("stand-ins".to_owned()).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A program that breaks off has nobody to tell.
            let _ = answer(&stream, play.as_ref());
        }
    })?;
    Ok(())
}

fn answer(mut stream: &UnixStream, play: &Play) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(std::io::Read::take(stream, REQUEST_MAX)).read_line(&mut line)?;
    let said = match serde_json::from_str(&line) {
        Ok(asked) => play(&asked),
        Err(error) => Answer { rc: 2, text: format!("{error}\n") },
    };
    writeln!(stream, "{}", serde_json::to_string(&said)?)
}

#[cfg(test)]
mod tests {
    use super::{Answer, Asked, serve};
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    fn say(socket: &std::path::Path, line: &str) -> Answer {
        let mut stream = UnixStream::connect(socket).unwrap();
        writeln!(stream, "{line}").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn programs_ask_and_are_answered() {
        let directory = std::env::temp_dir().join(format!("uvs-stand-in-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let socket = directory.join("socket");
        let play = |asked: &Asked| Answer { rc: 3, text: format!("{}!\n", asked.arguments.join("+")) };
        serve(&socket, Arc::new(play)).unwrap();
        let asked = Asked { command: "ip".to_owned(), arguments: vec!["a".to_owned(), "b c".to_owned()] };
        let line = serde_json::to_string(&asked).unwrap();
        assert_eq!(say(&socket, &line), Answer { rc: 3, text: "a+b c!\n".to_owned() });
        assert_eq!(say(&socket, "not json").rc, 2);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
