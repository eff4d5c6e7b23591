//! Fragments of TCP and UDP datagrams to our VIPs and LIPs, both families, both directions.
//!
//! The first fragment has the ports. It goes the way of a whole packet: to the worker that owns its
//! flow, through the flow table, a new flow if it may begin one. Its checksum covers the whole
//! datagram, and an incremental update (RFC 1624) is right for that too. What became of it is noted
//! in [`super::datagrams`], and the same becomes of the fragments that follow, by their addresses and
//! identification. So each fragment is translated as it arrives (RFC 6146 §3.4); those that come
//! before the first are kept by the worker for a while ([`Verdict::Await`]): RFC 4787 REQ-14.
//!
//! What could smuggle another header past the first fragment's is dropped: first fragments without
//! the whole TCP or UDP header (RFC 1858), and fragments that overlap the first (RFC 3128,
//! RFC 5722).
//!
//! NICs spread fragments by their addresses, so all of a datagram come to one worker, but not always
//! to the one that owns the flow. The receiver hands all of them over, in order; the owner notes the
//! datagram a second time, with its translation.

use super::build::Tables;
use super::create::find;
use super::datagrams::{Datagram, Datagrams, Fate, Identifications, Key, Translation};
use super::engine::{Context, Engine, Origin, next_hop};
use super::hash::Seed;
use super::owner::Asked;
use super::tables::WorkerId;
use super::time::Now;
use super::tuple::{Family, Tuple, deltas, get, protocol_number, put, transport};
use super::unusual::address;
use super::verdict::{DropReason, Verdict};
use crate::packet::checksum::Delta;
use crate::packet::{Fragment, Frame, Malformed, PROTOCOL_TCP, PROTOCOL_UDP, offset};

/// Next header of an IPv6 packet with a Fragment header.
pub(super) const FRAGMENT_HEADER: u8 = 44;

/// What a worker needs for fragments.
#[derive(Debug)]
pub(super) struct Fragments {
    pub datagrams: Datagrams,
    identifications: Identifications,
}

impl Fragments {
    pub fn new(worker: WorkerId, workers: u16, seed: &Seed) -> Self {
        let identifications = Identifications::new(worker, workers, seed);
        Self { datagrams: Datagrams::new(), identifications }
    }
}

/// A fragment, and what names its datagram.
struct Part {
    fragment: Fragment,
    key: Key,
    hash: u32,
    /// Of the frame, bytes.
    length: u64,
}

/// A fragment was translated: its verdict, and the identification it leaves with. Or its verdict
/// only, and it stays as it was.
type Outcome = Result<(Verdict, u32), Verdict>;

impl Engine {
    /// A frame that was parsed as a fragment, to one of our addresses.
    pub(super) fn fragment<F: Frame>(
        &mut self,
        context: &Context,
        frame: &mut F,
        v6: bool,
    ) -> Verdict {
        let fragment = match Fragment::read(frame.data(), v6) {
            Ok(fragment) => fragment,
            Err(malformed) => return Verdict::Drop(malformed.into()),
        };
        match (v6, fragment.protocol) {
            (false, PROTOCOL_UDP) => self.part::<u32, false, 42, F>(context, frame, fragment),
            (false, PROTOCOL_TCP) => self.part::<u32, true, 54, F>(context, frame, fragment),
            (true, PROTOCOL_UDP) => self.part::<u128, false, 62, F>(context, frame, fragment),
            (true, PROTOCOL_TCP) => self.part::<u128, true, 74, F>(context, frame, fragment),
            _ => Verdict::Drop(DropReason::Fragment),
        }
    }

    /// How many datagrams were noted: while it stays the same, no fragment that is kept has anything
    /// to hope for.
    pub fn datagrams_noted(&self) -> u64 {
        self.fragments.datagrams.recorded()
    }

    /// Whether a fragment that got [`Verdict::Await`] can go on now.
    pub fn knows_datagram(&self, datagram: u32, origin: Origin, now: Now) -> bool {
        let useful = |fate: &Fate| origin == Origin::Port || !matches!(fate, Fate::Owned(_));
        self.fragments.datagrams.knows(datagram, now.tick(), useful)
    }

    /// `N`: bytes of a frame up to the end of the fixed TCP or UDP header, were it not a fragment.
    fn part<A: Family, const TCP: bool, const N: usize, F: Frame>(
        &mut self,
        context: &Context,
        frame: &mut F,
        fragment: Fragment,
    ) -> Verdict {
        let length = frame.total_len() as u64;
        let data = frame.data_mut();
        let Some((mut header, whole)) = gather::<A, N>(data, fragment.protocol) else {
            return Verdict::Drop(DropReason::Truncated);
        };
        let Fragment { identification, protocol, .. } = fragment;
        let addresses = A::read_pair(&header);
        let hash = A::hash(&self.seed, addresses, identification, protocol) as u32;
        let addresses = [A::SOURCE, A::DESTINATION].map(|at| A::read(&header, at).to_address());
        let key = Key { addresses, identification, protocol, v6: A::V6 };
        let part = Part { fragment, key, hash, length };
        let first = fragment.offset == 0;
        let outcome = match first.then(|| check_first::<A, TCP, N>(&header, whole, &fragment)) {
            None => self.later::<A, TCP, N>(context, &mut header, &part),
            Some(Ok(())) => self.first::<A, TCP, N>(context, &mut header, &part),
            Some(Err(reason)) => Err(self.note_drop(context, &part, 0, reason)),
        };
        match outcome {
            Ok((verdict, identification)) => {
                self.stats.fragments.add(1);
                scatter::<A, N>(data, header, identification, first);
                verdict
            }
            // As it came: what does not leave is not written.
            Err(verdict @ Verdict::Drop(DropReason::TooBig)) if first => {
                self.answer_too_big::<A, TCP, N>(context, data, &header).unwrap_or(verdict)
            }
            Err(verdict) => verdict,
        }
    }

    fn first<A: Family, const TCP: bool, const N: usize>(
        &mut self,
        context: &Context,
        header: &mut [u8; N],
        part: &Part,
    ) -> Outcome {
        let transport = transport(A::V6, TCP);
        let arrives = Tuple::<A>::read(header);
        let ports = arrives.wire().ports;
        let hash = arrives.hash(&self.seed, protocol_number(transport));
        if self.workers > 1 && context.origin == Origin::Port {
            let owner = self.owner(context, transport, &arrives, hash, Asked::ByAddresses);
            if let Some(worker) = owner.filter(|&owner| owner != self.worker) {
                self.note(context, part, ports, Fate::Owned(worker));
                return Err(Verdict::Handover { worker });
            }
        }
        let hash = hash as u32;
        let found = self.flows.first(hash);
        let verdict = self.translate_header::<A, TCP, N>(context, header, hash, found, part.length);
        match verdict {
            Verdict::Transmit { .. } | Verdict::Wait { .. } => {}
            Verdict::Drop(reason) => return Err(self.note_drop(context, part, ports, reason)),
            other => return Err(other),
        }
        let (tables, lips) = (context.tables, &self.adoption.lips);
        let entry = find(&self.flows, tables, lips, transport, &arrives, hash);
        let Some((entry, record)) = entry.and_then(|e| Some((e, self.flows.get(e.flow())?))) else {
            return Err(Verdict::Drop(DropReason::NoFlow));
        };
        let leaves = Tuple::<A>::read(header);
        let mut translation = Translation {
            addresses: [leaves.source, leaves.destination].map(A::to_address),
            identification: 0,
            route: leaves.hash(&self.seed, protocol_number(transport)) as u32,
            service: record.service,
            backend: record.backend,
            direction: entry.direction(),
        };
        translation.identification = self.identification::<A>(context, part, ports, &translation);
        self.note(context, part, ports, Fate::Translated(translation));
        Ok((verdict, translation.identification))
    }

    /// A new identification; for a first fragment that came before, the one it got.
    fn identification<A: Family>(
        &mut self,
        context: &Context,
        part: &Part,
        ports: u32,
        translation: &Translation,
    ) -> u32 {
        let Fragments { datagrams, identifications } = &mut self.fragments;
        if let Some(known) = datagrams.find(part.hash, &part.key, context.now)
            && let Fate::Translated(before) = known.fate
            && (known.ports, before.addresses) == (ports, translation.addresses)
        {
            return before.identification;
        }
        let [source, destination] = translation.addresses.map(|a| A::from_address(&a));
        let pair = A::pair(source, destination);
        let hash = A::hash(&self.seed, pair, 0, part.fragment.protocol);
        identifications.next(hash, A::V6)
    }

    fn later<A: Family, const TCP: bool, const N: usize>(
        &mut self,
        context: &Context,
        header: &mut [u8; N],
        part: &Part,
    ) -> Outcome {
        // RFC 3128: whatever the first fragment says, this one would say it again.
        if usize::from(part.fragment.offset) < N - A::L4 {
            return Err(Verdict::Drop(DropReason::FragmentOverlap));
        }
        let known = self.fragments.datagrams.find(part.hash, &part.key, context.now);
        let Some(&mut Datagram { first_end, fate, .. }) = known else {
            return Err(Verdict::Await { datagram: part.hash });
        };
        let translation = match fate {
            Fate::Dropped(reason) => return Err(Verdict::Drop(reason)),
            Fate::Owned(worker) if context.origin == Origin::Port => {
                return Err(Verdict::Handover { worker });
            }
            // Handed over to us: the first fragment is on its way, or lost.
            Fate::Owned(_) => return Err(Verdict::Await { datagram: part.hash }),
            Fate::Translated(translation) => translation,
        };
        if u32::from(part.fragment.offset) < first_end {
            return Err(Verdict::Drop(DropReason::FragmentOverlap));
        }
        if header[A::TTL] <= 1 {
            return Err(Verdict::Drop(DropReason::TtlExpired));
        }
        let Translation { addresses, identification, route, service, backend, direction } =
            translation;
        let [source, destination] = addresses.map(|address| A::from_address(&address));
        let verdict = address_toward::<A, N>(context.tables, destination, route, header);
        if let Verdict::Drop(_) = verdict {
            return Err(verdict);
        }
        readdress::<A, N>(header, source, destination);
        self.count(service, backend, direction, part.length);
        Ok((verdict, identification))
    }

    fn note(&mut self, context: &Context, part: &Part, ports: u32, fate: Fate) {
        // A datagram in one piece (RFC 6946) has nothing to follow.
        if part.fragment.more {
            let datagram = Datagram { ports, first_end: part.fragment.end(), fate };
            let datagrams = &mut self.fragments.datagrams;
            if datagrams.record(part.hash, part.key, datagram, context.now) {
                self.stats.datagrams_evicted.add(1);
            }
        }
    }

    fn note_drop(
        &mut self,
        context: &Context,
        part: &Part,
        ports: u32,
        reason: DropReason,
    ) -> Verdict {
        self.note(context, part, ports, Fate::Dropped(reason));
        Verdict::Drop(reason)
    }

    /// As [`Engine::resolve`], for a fragment.
    pub(super) fn resolve_fragment(&self, tables: &Tables, data: &mut [u8], v6: bool) -> Verdict {
        if v6 {
            self.address_fragment::<u128, 54>(tables, data)
        } else {
            self.address_fragment::<u32, 34>(tables, data)
        }
    }

    /// All fragments of a datagram that waited take the same way, if not always that of those that
    /// did not.
    fn address_fragment<A: Family, const N: usize>(
        &self,
        tables: &Tables,
        data: &mut [u8],
    ) -> Verdict {
        let Some(header) = data.first_chunk_mut::<N>() else {
            return Verdict::Drop(DropReason::Truncated);
        };
        let hash = A::hash(&self.seed, A::read_pair(header), 0, header[A::PROTOCOL]) as u32;
        let destination = A::read(header, A::DESTINATION);
        address_toward::<A, N>(tables, destination, hash, header)
    }
}

/// Address a packet to the next hop toward `destination`. `Transmit`, `Wait` or `Drop`.
fn address_toward<A: Family, const N: usize>(
    tables: &Tables,
    destination: A,
    hash: u32,
    header: &mut [u8; N],
) -> Verdict {
    match next_hop(tables, destination.ip(), hash) {
        Ok(number) => address::<A, N>(tables, number, header),
        Err(verdict) => verdict,
    }
}

/// The headers of a fragment as if it were a whole datagram, and whether there was as much of it.
/// Bytes that are not there are zero. `None`: not even the IP header is there.
fn gather<A: Family, const N: usize>(data: &[u8], protocol: u8) -> Option<([u8; N], bool)> {
    let mut header = [0; N];
    let (ip, l4) = header.split_at_mut(A::L4);
    ip.copy_from_slice(data.get(..A::L4)?);
    let payload = data.get(A::L4 + Fragment::header_len(A::V6)..)?;
    let there = payload.len().min(l4.len());
    l4[..there].copy_from_slice(&payload[..there]);
    let whole = there == l4.len();
    header[A::PROTOCOL] = protocol;
    Some((header, whole))
}

/// Write translated headers back, with this identification. `first`: the TCP or UDP header too.
fn scatter<A: Family, const N: usize>(
    data: &mut [u8],
    mut header: [u8; N],
    identification: u32,
    first: bool,
) {
    let l4 = A::L4 + Fragment::header_len(A::V6);
    if A::V6 {
        header[A::PROTOCOL] = FRAGMENT_HEADER;
        if let Some(field) = data.get_mut(A::L4 + 4..A::L4 + 8) {
            field.copy_from_slice(&identification.to_be_bytes());
        }
    } else {
        let new = (identification as u16).to_be_bytes();
        let old: [u8; 2] = get(&header, offset::V4_IDENTIFICATION);
        put(&mut header, offset::V4_IDENTIFICATION, new);
        update_v4(&mut header, Delta::NONE.replace(&old, &new));
    }
    let (ip, ports) = header.split_at(A::L4);
    if let Some(place) = data.get_mut(..A::L4) {
        place.copy_from_slice(ip);
    }
    if first && let Some(place) = data.get_mut(l4..l4 + ports.len()) {
        place.copy_from_slice(ports);
    }
}

/// New addresses in the IP header, and one hop less to go.
fn readdress<A: Family, const N: usize>(header: &mut [u8; N], source: A, destination: A) {
    let tuple =
        |source, destination| Tuple { source, destination, source_port: 0, destination_port: 0 };
    let before = tuple(A::read(header, A::SOURCE), A::read(header, A::DESTINATION));
    let (addresses, _) = deltas(&before, &tuple(source, destination));
    A::write_pair(A::pair(source, destination), header);
    header[A::TTL] = header[A::TTL].wrapping_sub(1);
    if !A::V6 {
        update_v4(header, addresses.and(Delta::TTL_DECREMENT));
    }
}

fn update_v4<const N: usize>(header: &mut [u8; N], delta: Delta) {
    let checksum = u16::from_ne_bytes(get(header, offset::V4_CHECKSUM));
    put(header, offset::V4_CHECKSUM, delta.apply(checksum).to_ne_bytes());
}

/// A first fragment has the whole TCP or UDP header (which RFC 6146 §3.4 may ask for, and IPv6
/// hosts must send: RFC 7112), and one that can be right. `whole`: its fixed part is in `header`.
fn check_first<A: Family, const TCP: bool, const N: usize>(
    header: &[u8; N],
    whole: bool,
    fragment: &Fragment,
) -> Result<(), DropReason> {
    let length = usize::from(fragment.length);
    if length < N - A::L4 {
        return Err(DropReason::FragmentHeader);
    }
    if !whole {
        return Err(Malformed::Truncated.into());
    }
    if TCP {
        let needs = usize::from(header[A::L4 + 12] >> 4) * 4;
        return match needs {
            0..20 => Err(DropReason::BadHeader),
            _ if needs > length => Err(DropReason::FragmentHeader),
            _ => Ok(()),
        };
    }
    let udp_length = u16::from_be_bytes(get(header, A::L4 + 4));
    let checksum: [u8; 2] = get(header, A::L4 + offset::UDP_CHECKSUM);
    if udp_length < 8 {
        Err(DropReason::BadHeader)
    } else if A::V6 && checksum == [0; 2] {
        Err(DropReason::BadL4Checksum) // RFC 8200 §8.1
    } else {
        Ok(())
    }
}
