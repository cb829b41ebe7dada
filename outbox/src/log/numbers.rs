//! Whether the log gives its numbers as the cursors rely on: a claim looks, each renewal of the lease, and `doctor`.

use sqlx::FromRow;

use super::identity::Refusal;

/// The columns of [`Numbers`], which take the place of `$numbers` in a statement. What the sequence gives is looked at after the statement's
/// snapshot was taken: no cursor in it has come to a number that was given later. Goes through all of `cursors`, a few rows for each
/// stream; locks nothing.
pub(crate) const NUMBERS: &str = "
  coalesce(
    (
      select array_agg(attname::text order by attnum) = '{txid,seq}'
      from pg_attribute
      where attrelid = '{{schema}}.messages'::regclass and attname in ('txid', 'seq')
    ),
    false
  ) as ids_first,
  coalesce(
    (
      select seqcache = 1 and seqincrement = 1 and not seqcycle
      from pg_sequence
      where seqrelid = '{{schema}}.messages_seq_seq'::regclass
    ),
    false
  ) as one_by_one,
  (select last_value - (not is_called)::int from {{schema}}.messages_seq_seq) as last_number,
  coalesce((select max(last_seq) from {{schema}}.cursors), 0) as highest_read";

/// How the log gives its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub(crate) struct Numbers {
    /// A transaction takes a number only once it has its id: the server gives columns their values in their order.
    pub(crate) ids_first: bool,
    /// The sequence gives one number after the other.
    pub(crate) one_by_one: bool,
    /// The number that was given last.
    pub(crate) last_number: i64,
    /// The highest number that a stored cursor has come to.
    pub(crate) highest_read: i64,
}

impl Numbers {
    /// Refuses a log whose cursors would pass over messages. `highest` is the highest number known to be in the log.
    pub(crate) fn judge(&self, highest: i64) -> Result<(), Refusal> {
        if !(self.ids_first && self.one_by_one) {
            return Err(Refusal::NumbersOutOfOrder);
        }
        let highest = highest.max(self.highest_read);
        if self.last_number < highest {
            return Err(Refusal::SequenceBehind {
                sequence: self.last_number,
                highest,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: Numbers = Numbers {
        ids_first: true,
        one_by_one: true,
        last_number: 10,
        highest_read: 10,
    };

    #[test]
    fn numbers_that_come_before_ids_or_not_one_by_one_are_refused() {
        let numbers_first = Numbers {
            ids_first: false,
            ..SOUND
        };
        let by_the_dozen = Numbers {
            one_by_one: false,
            ..SOUND
        };

        assert_eq!(SOUND.judge(0), Ok(()));
        assert_eq!(numbers_first.judge(0), Err(Refusal::NumbersOutOfOrder));
        assert_eq!(by_the_dozen.judge(0), Err(Refusal::NumbersOutOfOrder));
    }

    #[test]
    fn a_sequence_below_what_is_in_the_log_or_was_read_from_it_is_refused() {
        let behind = |sequence, highest| Err(Refusal::SequenceBehind { sequence, highest });
        let set_back = Numbers {
            last_number: 3,
            ..SOUND
        };

        assert_eq!(SOUND.judge(10), Ok(()));
        assert_eq!(SOUND.judge(11), behind(10, 11));
        assert_eq!(set_back.judge(0), behind(3, 10));
    }
}
