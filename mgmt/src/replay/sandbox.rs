//! Where a trace's commands run: namespaces of their own, in which nothing of the machine's network, sysctls, processes and
//! temporary files is to be reached.
//!
//! | in a line | is there |
//! | --- | --- |
//! | `ipvsadm`, `sh` and text tools (see [`TOOLS`]) | the machine's own programs, with the preloaded library |
//! | `/proc/net/ip_vs*` | the director's, by the preloaded library |
//! | `/proc/sys/net/ipv4/vs/*` | files of the same names; what a line writes becomes settings |
//! | `ip`, `iptables` | commands on the replay's tables (see [`super::network_commands`]) |
//! | `strace … COMMAND` | the command alone |
//! | `/tmp` | empty at first, gone with the replay |
//! | names of hosts and services | none, as on the recorded director |
//!
//! Any other program is not found.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::compare::Said;

/// Where everything of the sandbox is, inside of it.
pub const HOME: &str = "/run/uvs-replay";
/// The kernel's directory of IPVS settings.
pub const SETTINGS: &str = "/proc/sys/net/ipv4/vs";
/// Programs that lines may use.
pub const TOOLS: &str = "ipvsadm ipvsadm-save ipvsadm-restore sh cat cut diff egrep env expr fgrep grep head mkdir rm sed seq sleep \
                         sort sysctl tail tee touch tr uniq wc";
/// Commands that this program itself stands in for.
pub const STAND_INS: [&str; 3] = ["ip", "iptables", "ip6tables"];
/// How long a line may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes that a line may print.
const TEXT_MAX: u64 = 16 << 20;

/// Makes the place; run in fresh namespaces with this program and the library as arguments.
const FURNISH: &str = r#"
set -e
program=$1 library=$2 home=$3 settings=$4 tools=$5 stand_ins=$6
mount -t tmpfs -o mode=0755,size=64m replay /run
mkdir -p "$home/bin"
touch "$home/uvs-replay"
mount --bind "$program" "$home/uvs-replay"
cp "$library" "$home/libuvs_ipvs.so"
for tool in $tools; do
    for directory in /usr/sbin /usr/bin /sbin /bin; do
        if [ -x "$directory/$tool" ]; then
            ln -s "$directory/$tool" "$home/bin/$tool"
            break
        fi
    done
done
for tool in $stand_ins; do ln -s ../uvs-replay "$home/bin/$tool"; done
cat >"$home/bin/strace" <<'END'
#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        -o) echo '1 none() = 0' >"$2" && shift 2 ;;
        -s | -e) shift 2 ;;
        -*) shift ;;
        *) break ;;
    esac
done
exec "$@"
END
chmod +x "$home/bin/strace"
for file in hosts services resolv.conf; do
    if [ -e "/etc/$file" ]; then mount --bind /dev/null "/etc/$file"; fi
done
mount -t tmpfs -o size=1m replay "${settings%/*}"
mkdir "$settings"
mount -t tmpfs -o size=64m replay /tmp
"#;

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A program could not be started.
    #[error("cannot run {program}: {error}")]
    Run {
        /// Which.
        program: &'static str,
        /// Why.
        error: io::Error,
    },
    /// The namespaces could not be furnished.
    #[error("cannot furnish the commands' namespace: {0}")]
    Furnish(String),
    /// A file in the sandbox.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// This program in namespaces of its own, with `arguments`; root is not needed where the kernel lets users make namespaces.
#[must_use]
pub fn enter(program: &Path, arguments: &[OsString]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg("--").arg(program).args(arguments);
    command
}

/// The sandbox, from within.
#[derive(Debug)]
pub struct Sandbox {
    home: PathBuf,
    stand_in_socket: PathBuf,
}

impl Sandbox {
    /// Furnishes the namespaces that this process was started in.
    ///
    /// # Errors
    /// A mount or a copy failed.
    pub fn furnish(program: &Path, library: &Path) -> Result<Self, SandboxError> {
        let output = Command::new("sh")
            .args(["-c", FURNISH, "sh"])
            .args([program.as_os_str(), library.as_os_str()])
            .args([HOME, SETTINGS, TOOLS, &STAND_INS.join(" ")])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| SandboxError::Run { program: "sh", error })?;
        if !output.status.success() {
            return Err(SandboxError::Furnish(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let home = PathBuf::from(HOME);
        Ok(Self { stand_in_socket: home.join("stand-ins.sock"), home })
    }

    /// The directory of the director's sockets.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.home.join("control")
    }

    /// The socket that [`STAND_INS`] ask.
    #[must_use]
    pub fn stand_in_socket(&self) -> &Path {
        &self.stand_in_socket
    }

    /// Runs a line with `sh`, as the recorder did.
    ///
    /// # Errors
    /// The shell could not be started.
    pub fn run(&self, line: &str) -> Result<Said, SandboxError> {
        let failed = |error| SandboxError::Run { program: "sh", error };
        let (mut reader, writer) = io::pipe().map_err(failed)?;
        let mut child = Command::new("/bin/sh")
            .args(["-c", line])
            .env_clear()
            .env("PATH", self.home.join("bin"))
            .env("LD_PRELOAD", self.home.join("libuvs_ipvs.so"))
            .env("UVS_IPVS_SOCKET", self.control().join("ipvs.sock"))
            .env(super::stand_in::SOCKET, &self.stand_in_socket)
            .current_dir("/tmp")
            .stdin(Stdio::null())
            .stdout(writer.try_clone().map_err(failed)?)
            .stderr(writer)
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let group = rustix::process::Pid::from_child(&child);
        let (done, over) = mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            if over.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
        });
        let mut bytes = Vec::new();
        let read = reader.by_ref().take(TEXT_MAX).read_to_end(&mut bytes);
        drop(reader);
        let status = child.wait();
        drop(done);
        let _ = watch.join();
        read.map_err(failed)?;
        let status = status.map_err(failed)?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0);
        let rc = status.code().unwrap_or(128 + signal);
        Ok(Said { rc, text: bytes.into_iter().map(char::from).collect() })
    }

    /// Writes the settings' files.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write_settings<'a>(
        &self,
        values: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), SandboxError> {
        for (name, value) in values {
            let path = Path::new(SETTINGS).join(name);
            fs::write(&path, format!("{value}\n")).map_err(|error| SandboxError::File { path, error })?;
        }
        Ok(())
    }

    /// What the settings' files say now.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read_settings(&self) -> Result<Vec<(String, String)>, SandboxError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| SandboxError::File { path, error }
        };
        let directory = Path::new(SETTINGS);
        let mut values = Vec::new();
        for entry in fs::read_dir(directory).map_err(at(directory))? {
            let path = entry.map_err(at(directory))?.path();
            let value = fs::read_to_string(&path).map_err(at(&path))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            values.push((name, value.split_whitespace().collect::<Vec<_>>().join(" ")));
        }
        values.sort();
        Ok(values)
    }
}
