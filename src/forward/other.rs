//! Frames that are neither TCP nor UDP that can be translated: left to the kernel, or dropped with
//! a reason; ICMP is in `icmp`, fragments in `fragments`. Not the fast path.

use super::build::{Address, Local};
use super::engine::{Context, Engine};
use super::verdict::{DropReason, Verdict};
use crate::packet::{self, Frame, Kind, Other};

impl Engine {
    #[inline(never)]
    pub(super) fn other<F: Frame>(&mut self, context: Context, frame: &mut F) -> Verdict {
        // The header's checksum has been looked at.
        match packet::parse(frame.data(), frame.total_len(), false) {
            Err(malformed) => Verdict::Drop(malformed.into()),
            Ok(Kind::OtherIp { v6, why }) => self.other_ip(&context, frame, v6, why),
            Ok(Kind::Icmp { v6: false }) => self.icmp::<u32, 42>(context, frame.data_mut()),
            Ok(Kind::Icmp { v6: true }) => self.icmp::<u128, 62>(context, frame.data_mut()),
            // Tagged frames too: VLANs are the kernel's, on its own VLAN interfaces.
            Ok(Kind::NotIp | Kind::Transport(_)) => Verdict::Kernel,
        }
    }

    fn other_ip<F: Frame>(
        &mut self,
        context: &Context,
        frame: &mut F,
        v6: bool,
        why: Other,
    ) -> Verdict {
        let Some(destination) = packet::destination(frame.data(), v6) else {
            return Verdict::Drop(DropReason::Truncated);
        };
        match (why, context.tables.local(Address::of(destination), v6)) {
            (_, None) => Verdict::Kernel,
            (Other::Fragment, Some(_)) => self.fragment(context, frame, v6),
            (Other::Header, Some(_)) => Verdict::Drop(DropReason::UnsupportedHeader),
            (Other::Protocol, Some(Local::Vip { .. })) => Verdict::Drop(DropReason::NoService),
            (Other::Protocol, Some(Local::Lip(_))) => Verdict::Drop(DropReason::NoFlow),
        }
    }
}
