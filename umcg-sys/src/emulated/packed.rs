//! The two private words, {epoch, index, phase} each, in which all races are decided.
//!
//! Layout of both, low to high: 4 bits of phase or tag, 20 bits of record index, 40 bits of
//! epoch. The index and the phase are in the low half, which is what a futex compares. 40 bits
//! of epoch last 17 days of uninterrupted dispatches of one worker at 1.4 us each, and a judge
//! would have to stand still for exactly that long to be fooled.

use core::fmt;

/// Index of a record in the arena.
pub(crate) type Index = u32;

/// Records that the words can name. Index 0 is never used, so that 0 means nobody.
pub(crate) const MAX_RECORDS: u32 = 1 << 20;

const INDEX_SHIFT: u32 = 4;
const EPOCH_SHIFT: u32 = 24;
const PHASE_MASK: u64 = 0xf;
const INDEX_MASK: u64 = (MAX_RECORDS as u64 - 1) << INDEX_SHIFT;
const EPOCH_MASK: u64 = (1 << (64 - EPOCH_SHIFT)) - 1;

const fn pack(epoch: u64, index: Index, low: u64) -> u64 {
    ((epoch & EPOCH_MASK) << EPOCH_SHIFT) | ((index as u64) << INDEX_SHIFT) | low
}

/// What a worker is doing, as far as its slot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// In no slot: asleep in the gate, or on its way there. Set by the worker itself or by the
    /// dispatcher that claimed it.
    Out = 0,
    /// A slot names it with this epoch; it has not run yet. Set by whoever completes the
    /// dispatch. No verdict touches it.
    Dispatched = 1,
    /// The same, by a block that consumed the `next_tid` in which this worker was armed. The
    /// index is the worker that blocked, whose event the newcomer still has to book.
    Successor = 2,
    /// It runs, and holds its slot. Set by the worker alone. The index is the worker armed as
    /// its `next_tid`. The only phase from which a verdict is possible.
    Acked = 3,
    /// Judged blocked (or preempted): the slot is somebody else's from here on, and whoever
    /// reads this may carry that out. Set by a judge, left by the worker or by the dispatcher
    /// that claimed it.
    Judged = 4,
    /// Judged, and the verdict consumed the armed worker in the index.
    Switched = 5,
    /// Judged, found awake, and about to be given a slot again. Set and left by the adopter;
    /// left also by the worker at its checkpoint, which calls the adoption off.
    Adopting = 6,
    /// An ordinary thread: its server is gone, or it is not registered.
    Plain = 7,
}

/// The run word of a worker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run(pub(crate) u64);

impl Run {
    pub(crate) const fn new(epoch: u64, index: Index, phase: Phase) -> Self {
        Self(pack(epoch, index, phase as u64))
    }

    pub(crate) const fn epoch(self) -> u64 {
        self.0 >> EPOCH_SHIFT
    }

    /// The armed worker, or in [`Phase::Successor`] the one that blocked; 0 = none. The
    /// worker's own index: its armed one is being taken back.
    pub(crate) const fn index(self) -> Index {
        ((self.0 & INDEX_MASK) >> INDEX_SHIFT) as Index
    }

    pub(crate) fn phase(self) -> Phase {
        match self.0 & PHASE_MASK {
            0 => Phase::Out,
            1 => Phase::Dispatched,
            2 => Phase::Successor,
            3 => Phase::Acked,
            4 => Phase::Judged,
            5 => Phase::Switched,
            6 => Phase::Adopting,
            7 => Phase::Plain,
            other => unreachable!("run word phase {other}"),
        }
    }

    /// The same epoch and index in another phase.
    pub(crate) fn to(self, phase: Phase) -> Self {
        Self((self.0 & !PHASE_MASK) | phase as u64)
    }

    /// The same epoch and phase with another index.
    pub(crate) const fn naming(self, index: Index) -> Self {
        Self((self.0 & !INDEX_MASK) | ((index as u64) << INDEX_SHIFT))
    }

    /// Whether the worker runs on somebody's verdict.
    pub(crate) fn is_judged(self) -> bool {
        matches!(self.phase(), Phase::Judged | Phase::Switched)
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}, {})", self.phase(), self.epoch(), self.index())
    }
}

/// Who has a server's CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// The server itself: it is awake, or somebody who made this so is about to wake it. The
    /// index and epoch are those of the worker that held the slot last.
    Server = 0,
    /// Nobody: the server sleeps in `wait` without a pick. The first unblocked worker may take
    /// the slot by a CAS.
    Idle = 1,
    /// The worker in the index, by its dispatch of that epoch.
    Held = 2,
    /// The server is gone.
    Dead = 3,
}

/// The slot word of a server: the truth that the user words mirror.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u64);

impl Slot {
    pub(crate) const SERVER: Self = Self(pack(0, 0, Tag::Server as u64));
    pub(crate) const IDLE: Self = Self(pack(0, 0, Tag::Idle as u64));
    pub(crate) const DEAD: Self = Self(pack(0, 0, Tag::Dead as u64));

    pub(crate) const fn held(index: Index, epoch: u64) -> Self {
        Self(pack(epoch, index, Tag::Held as u64))
    }

    /// The slot is the server's after that worker left it.
    pub(crate) const fn after(index: Index, epoch: u64) -> Self {
        Self(pack(epoch, index, Tag::Server as u64))
    }

    pub(crate) fn tag(self) -> Tag {
        match self.0 & PHASE_MASK {
            0 => Tag::Server,
            1 => Tag::Idle,
            2 => Tag::Held,
            3 => Tag::Dead,
            other => unreachable!("slot word tag {other}"),
        }
    }

    pub(crate) const fn index(self) -> Index {
        ((self.0 & INDEX_MASK) >> INDEX_SHIFT) as Index
    }

    pub(crate) const fn epoch(self) -> u64 {
        self.0 >> EPOCH_SHIFT
    }

    pub(crate) fn is_held(self) -> bool {
        self.tag() == Tag::Held
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}, {})", self.tag(), self.epoch(), self.index())
    }
}
