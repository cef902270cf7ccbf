//! The run word of a worker and the slot word of a server, in which every race is decided.
//!
//! Both have the same layout. From the low end: 4 bits of phase or tag, 20 bits of record index,
//! 40 bits of epoch. Phase and index are in the low half because a futex compares 32 bits.
//!
//! The epoch wraps after 2^40 dispatches of one worker, which is 17 days of uninterrupted
//! dispatches at 1.4 us each. To be deceived, a judge would have to stand still for exactly that
//! time between its read of a run word and its compare-and-swap (CAS).

use core::fmt;

/// The index of a record in the arena; 0 stands for nobody.
pub(crate) type Index = u32;

/// How many records the words can name. Index 0 is never given out, so that 0 can mean nobody.
pub(crate) const MAX_RECORDS: u32 = 1 << 20;

const INDEX_SHIFT: u32 = 4;
const EPOCH_SHIFT: u32 = 24;
const PHASE_MASK: u64 = 0xf;
const INDEX_MASK: u64 = (MAX_RECORDS as u64 - 1) << INDEX_SHIFT;
const EPOCH_MASK: u64 = (1 << (64 - EPOCH_SHIFT)) - 1;

const fn pack(epoch: u64, index: Index, low: u64) -> u64 {
    ((epoch & EPOCH_MASK) << EPOCH_SHIFT) | ((index as u64) << INDEX_SHIFT) | low
}

/// How far the worker's current dispatch has come. The README lists who may make which step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The worker is in no slot: it sleeps in its gate or is on its way there. Set by the worker
    /// itself or by the dispatcher that claimed it. The index is the spare that it will be
    /// dispatched with.
    Out = 0,
    /// A slot names the worker with this epoch, and the worker has not run yet. Set by the thread
    /// that completes the dispatch. No verdict is possible. The index is the spare.
    Dispatched = 1,
    /// Like DISPATCHED, for a spare that a block dispatched. The index is the predecessor, the
    /// worker that blocked; the successor reports that block to the server when it runs.
    Successor = 2,
    /// The worker has acknowledged the dispatch: it runs and holds its slot. Set by the worker
    /// (after an adoption by the adopter). The index is the spare. This is the only phase from
    /// which a verdict is possible.
    Acked = 3,
    /// The worker was judged blocked, or was preempted. It has lost the slot, and any thread that
    /// reads this may give the slot to the server. Set by a judge; left by the worker or by the
    /// dispatcher that claimed it.
    Judged = 4,
    /// Like JUDGED, and the verdict consumed the spare in the index: the slot goes to that spare.
    Switched = 5,
    /// The worker was judged, the monitor found it awake, and it is about to be given the slot
    /// again. Set and left by the adopter. The worker leaves this phase too, at its checkpoint,
    /// and thereby calls the adoption off.
    Adopting = 6,
    /// The thread is an ordinary one: its server is gone, or it is not registered.
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

    /// The spare, or in [`Phase::Successor`] the predecessor; 0 means none. The worker's own index
    /// is the mark of a thread that is taking the spare back (see `disarm`).
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

    /// Whether a verdict on this dispatch stands.
    pub(crate) fn is_judged(self) -> bool {
        matches!(self.phase(), Phase::Judged | Phase::Switched)
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({}, {})", self.phase(), self.epoch(), self.index())
    }
}

/// Who has the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// The server itself. It is awake, or the thread that set this tag is about to wake it. Index
    /// and epoch name the worker that held the slot last, until the server has looked at it.
    Server = 0,
    /// Nobody: the server sleeps in `wait` without a pick. The first worker that unblocks may take
    /// the slot by a CAS.
    Idle = 1,
    /// The worker in the index, by its dispatch of this epoch.
    Held = 2,
    /// The server is gone.
    Dead = 3,
}

/// The slot word of a server. It is the truth about the slot; the user state follows it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u64);

impl Slot {
    pub(crate) const SERVER: Self = Self(pack(0, 0, Tag::Server as u64));
    pub(crate) const IDLE: Self = Self(pack(0, 0, Tag::Idle as u64));
    pub(crate) const DEAD: Self = Self(pack(0, 0, Tag::Dead as u64));

    pub(crate) const fn held(index: Index, epoch: u64) -> Self {
        Self(pack(epoch, index, Tag::Held as u64))
    }

    /// The slot belongs to the server after that worker has left it.
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
