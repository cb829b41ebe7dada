//! A billing service whose invoices are written once per order.
