//! The words that CPUs share, and how often each is touched.

use std::fmt;

/// A shared word of the runtime or of the emulated provider: a line, or one line a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The reference count of `Arc<Shared>`: each task holds one.
    SharedCount,
    /// `Sleep::word`.
    Sleep,
    /// `Sleep::seats`, a line a server.
    Seat,
    /// Head of the injector.
    InjectorHead,
    /// Its tail.
    InjectorTail,
    /// Its slots, four a line.
    InjectorSlot,
    /// Head of a server's queue.
    QueueHead,
    /// Its tail.
    QueueTail,
    /// Its slots.
    QueueSlot,
    /// The rest of a server's `Waiting`: LIFO slot, number of waiting workers, what the monitor saw
    /// last.
    Waiting,
    /// What threads count that are no workers.
    OutsideCounts,
    /// `ServerCounts`.
    ServerCounts,
    /// `server::Words`: idle, resting, population, ...
    ServerWords,
    /// The server's `UmcgTask`: state and list heads.
    ServerTask,
    /// The server's inbox and the lock of its lists.
    Lists,
    /// The provider's record of the server: pins, bell, host, tid.
    Record,
    /// The monitor's bed.
    Bed,
    /// `Cap`: total, own waits.
    Cap,
    /// `task::id::NEXT_BLOCK`.
    TaskId,
}

/// All of them.
pub(crate) const WORDS: [Word; 19] = [
    Word::SharedCount,
    Word::Sleep,
    Word::Seat,
    Word::InjectorHead,
    Word::InjectorTail,
    Word::InjectorSlot,
    Word::QueueHead,
    Word::QueueTail,
    Word::QueueSlot,
    Word::Waiting,
    Word::OutsideCounts,
    Word::ServerCounts,
    Word::ServerWords,
    Word::ServerTask,
    Word::Lists,
    Word::Record,
    Word::Bed,
    Word::Cap,
    Word::TaskId,
];

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SharedCount => "count of `Arc<Shared>`",
            Self::Sleep => "`Sleep::word`",
            Self::Seat => "seats",
            Self::InjectorHead => "injector head",
            Self::InjectorTail => "injector tail",
            Self::InjectorSlot => "injector slots",
            Self::QueueHead => "head of a server's queue",
            Self::QueueTail => "tail of a server's queue",
            Self::QueueSlot => "slots of a server's queue",
            Self::Waiting => "LIFO slot and waiting workers",
            Self::OutsideCounts => "`OutsideCounts`",
            Self::ServerCounts => "`ServerCounts`",
            Self::ServerWords => "`server::Words`",
            Self::ServerTask => "server's `UmcgTask`",
            Self::Lists => "server's inbox and lists",
            Self::Record => "provider's record of a server",
            Self::Bed => "monitor's bed",
            Self::Cap => "`Cap`",
            Self::TaskId => "task id counter",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_the_order_of_the_numbers() {
        for (index, word) in WORDS.into_iter().enumerate() {
            assert_eq!(word as usize, index);
        }
    }
}
