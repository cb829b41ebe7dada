//! An order service that writes its events in its business transaction.
