//! VLAN tags that the device took out of the frame.

use dpdk_sys::{RTE_MBUF_F_RX_VLAN, RTE_MBUF_F_RX_VLAN_STRIPPED};

use super::Mbuf;

const ADDRESSES: usize = 12;
const TAG: usize = 4;

impl Mbuf {
    /// The tag (priority and VLAN id, host order) that the device removed from the frame. This layer never
    /// asks for that, but `net_af_packet` gets its frames from the kernel with the tag already removed.
    #[inline(always)]
    #[must_use]
    pub fn stripped_vlan(&self) -> Option<u16> {
        let raw = self.raw();
        (raw.ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED != 0).then_some(raw.vlan_tci)
    }

    /// Writes a removed 802.1Q tag back into the frame, so that it reads as it was on the wire. True when there
    /// is nothing (left) to do, false without headroom or Ethernet header.
    #[must_use]
    pub fn restore_vlan(&mut self) -> bool {
        let Some(tag) = self.stripped_vlan() else { return true };
        if self.len() < ADDRESSES || self.prepend(TAG).is_none() {
            return false;
        }
        let data = self.data_mut();
        data.copy_within(TAG..TAG + ADDRESSES, 0);
        if let Some(room) = data.get_mut(ADDRESSES..ADDRESSES + TAG) {
            room[..2].copy_from_slice(&[0x81, 0x00]);
            room[2..].copy_from_slice(&tag.to_be_bytes());
        }
        self.raw_mut().ol_flags &= !(RTE_MBUF_F_RX_VLAN | RTE_MBUF_F_RX_VLAN_STRIPPED);
        true
    }
}
