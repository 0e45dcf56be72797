//! Who is at the other end of a connection, and what that allows.

use std::fs;
use std::os::unix::net::UnixStream;

use crate::protocol::Role;

/// A client, as the kernel vouches for it (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process when it connected; 0 outside our PID namespace.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// What it may do.
    pub role: Role,
}

/// Who may change things: root, the director's own user, and the members of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operators {
    /// Users by number, root apart.
    pub uid: Option<u32>,
    /// Group by number.
    pub gid: Option<u32>,
    /// Whether root is one; false only in tests, which run as root.
    pub root: bool,
}

impl Operators {
    /// Root, the user the director runs as, and a group's members.
    #[must_use]
    pub fn group(gid: u32) -> Self {
        Self { uid: Some(rustix::process::geteuid().as_raw()), gid: Some(gid), root: true }
    }

    fn role(self, uid: u32, gid: u32) -> Role {
        let operator = self.root && uid == 0
            || self.uid == Some(uid)
            || self.gid.is_some_and(|group| group == gid || is_member(uid, group));
        if operator { Role::Operator } else { Role::Viewer }
    }

    /// Asks the kernel who connected.
    ///
    /// # Errors
    ///
    /// The socket is no longer connected.
    pub fn identify(self, stream: &UnixStream) -> std::io::Result<Peer> {
        let credentials = rustix::net::sockopt::socket_peercred(stream)?;
        let (uid, gid) = (credentials.uid.as_raw(), credentials.gid.as_raw());
        Ok(Peer { pid: credentials.pid.as_raw_nonzero().get(), uid, gid, role: self.role(uid, gid) })
    }
}

/// Whether `/etc/group` lists a user in a group. Peer credentials carry the effective group only, not the others.
fn is_member(uid: u32, gid: u32) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    listed(&read("/etc/passwd"), &read("/etc/group"), uid, gid)
}

fn listed(passwd: &str, group: &str, uid: u32, gid: u32) -> bool {
    let number = |field: Option<&str>| field.and_then(|text| text.parse::<u32>().ok());
    let user = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (number(fields.nth(1)) == Some(uid)).then_some(name)
    });
    let Some(user) = user else { return false };
    group.lines().any(|line| {
        let mut fields = line.split(':').skip(2);
        number(fields.next()) == Some(gid)
            && fields.next().is_some_and(|members| members.split(',').any(|member| member == user))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_found_by_name() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:1001::/:/bin/sh\n";
        let group = "root:x:0:\nops:x:2000:ann,carol\nnoise\n:::\n";
        assert!(listed(passwd, group, 1000, 2000));
        assert!(!listed(passwd, group, 1001, 2000));
        assert!(!listed(passwd, group, 1000, 0));
        assert!(!listed(passwd, group, 4242, 2000));
        assert!(!listed("", "", 0, 0));
    }

    #[test]
    fn roles_follow_user_and_group() {
        let operators = Operators { uid: None, gid: Some(2_000_000), root: true };
        assert_eq!(operators.role(0, 0), Role::Operator);
        assert_eq!(operators.role(4_000_000, 2_000_000), Role::Operator);
        assert_eq!(operators.role(4_000_000, 1), Role::Viewer);
        let nobody = Operators { uid: None, gid: None, root: false };
        assert_eq!(nobody.role(0, 0), Role::Viewer);
    }
}
