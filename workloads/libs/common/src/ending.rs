//! How the program of a Job ends when trying again mends nothing: each such ending has an exit code, by which Kubernetes
//! fails the Job at once and the operator knows why. Knows codes, not what is done about them.

/// An ending that trying again does not mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Source and target still differ after what differed was carried again.
    Different,
    /// A stored value or record cannot be understood.
    Corrupt,
    /// A server is full: it takes no more.
    OutOfMemory,
    /// The work is not wanted any more. Nothing went wrong.
    CalledOff,
}

impl Ending {
    /// All of them.
    pub const ALL: [Ending; 4] = [Ending::Different, Ending::Corrupt, Ending::OutOfMemory, Ending::CalledOff];

    /// The exit code: none that a shell, a panic (101), a signal (from 128 on) or an armed failpoint (86) has.
    pub const fn code(self) -> u8 {
        match self {
            Ending::Different => 41,
            Ending::Corrupt => 42,
            Ending::OutOfMemory => 43,
            Ending::CalledOff => 44,
        }
    }

    /// What an exit code says.
    pub fn of(code: i32) -> Option<Ending> {
        Ending::ALL.into_iter().find(|ending| i32::from(ending.code()) == code)
    }

    /// Whether it is a failure: the work is given up, and people must know.
    pub const fn is_failure(self) -> bool {
        !matches!(self, Ending::CalledOff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failpoint::EXIT_STATUS;

    #[test]
    fn every_ending_has_a_code_of_its_own_that_nothing_else_ends_with() {
        for ending in Ending::ALL {
            let code = i32::from(ending.code());
            assert_eq!(Ending::of(code), Some(ending));
            assert!(code > 2 && code < 64 && code != EXIT_STATUS, "{ending:?}");
        }
        for code in [0, 1, 2, 101, 137, 143, EXIT_STATUS] {
            assert_eq!(Ending::of(code), None);
        }
    }
}
