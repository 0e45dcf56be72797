//! The controller, `nlctrl`: which families there are, and under which number.

use netlink_packet_generic::ctrl::nlas::{GenlCtrlAttrs, OpAttrs};
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use rustix::io::Errno;

use super::attribute::{Rule, Table};
use super::number;
use super::operation::OPERATIONS;

/// `CTRL_CMD_GETFAMILY`.
pub(super) const GET_FAMILY: u8 = 3;

const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// `GENL_NAMSIZ` without the zero byte.
const NAME: usize = 15;
const RULES: [Rule; 3] = [Rule::Any, Rule::Number(2), Rule::Text(NAME)];

/// `GENL_ADMIN_PERM`: a command that takes a privilege.
const PRIVILEGED: u32 = 1;
/// `GENL_CMD_CAP_DO`.
const SINGLE: u32 = 2;
/// `GENL_CMD_CAP_DUMP`.
const DUMP: u32 = 4;
/// `GENL_CMD_CAP_HASPOL`: its attributes have rules.
const RULED: u32 = 8;

/// A family that the controller tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Controller,
    Ipvs,
}

impl Known {
    const ALL: [Self; 2] = [Self::Controller, Self::Ipvs];

    fn number(self) -> u16 {
        match self {
            Self::Controller => number::CONTROLLER,
            Self::Ipvs => number::IPVS,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Controller => "nlctrl",
            Self::Ipvs => "IPVS",
        }
    }

    /// `CTRL_CMD_NEWFAMILY`, attributes in the kernel's order.
    fn described(self) -> GenlCtrl {
        let (version, attributes, operations) = match self {
            Self::Controller => (2, 0, vec![operation(GET_FAMILY, SINGLE | DUMP | RULED)]),
            Self::Ipvs => (
                1,
                6,
                OPERATIONS
                    .iter()
                    .map(|one| {
                        let forms = [(one.single, SINGLE), (one.dump, DUMP)];
                        let forms =
                            forms.iter().filter(|(there, _)| *there).fold(0, |all, (_, form)| all | form);
                        operation(one.command, PRIVILEGED | forms | RULED)
                    })
                    .collect(),
            ),
        };
        GenlCtrl {
            cmd: GenlCtrlCmd::NewFamily,
            nlas: vec![
                GenlCtrlAttrs::FamilyName(self.name().to_owned()),
                GenlCtrlAttrs::FamilyId(self.number()),
                GenlCtrlAttrs::Version(version),
                GenlCtrlAttrs::HdrSize(0),
                GenlCtrlAttrs::MaxAttr(attributes),
                GenlCtrlAttrs::Ops(operations),
            ],
        }
    }
}

fn operation(command: u8, flags: u32) -> Vec<OpAttrs> {
    vec![OpAttrs::Id(command.into()), OpAttrs::Flags(flags)]
}

/// The family that a request names, by number or by name; the name decides where both are given.
///
/// # Errors
///
/// `ENOENT`: there is none of this name; `EINVAL`: none is named.
pub(super) fn family(attributes: &[u8]) -> Result<GenlCtrl, Errno> {
    let table = Table::read(attributes, &RULES)?;
    let by_number =
        table.u16(FAMILY_ID).map(|wanted| Known::ALL.into_iter().find(|known| known.number() == wanted));
    let by_name = table
        .text(FAMILY_NAME)
        .map(|wanted| Known::ALL.into_iter().find(|known| known.name().as_bytes() == wanted));
    by_name.or(by_number).ok_or(Errno::INVAL)?.map(Known::described).ok_or(Errno::NOENT)
}

/// All families.
pub(super) fn families() -> impl Iterator<Item = GenlCtrl> {
    Known::ALL.into_iter().map(Known::described)
}
