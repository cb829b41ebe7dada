-- The service's own table. Onceward's marks lie in a schema of their own and come with `onceward migrate`.
-- All of this is one transaction. Two processes that start together take turns, which `if not exists` alone does not see to.
select pg_advisory_xact_lock(hashtext('billing tables'));

create schema if not exists billing;

-- No unique constraint on order_id, on purpose: that each order is billed once is for the mark to keep,
-- and for the demo's ledger to check. A service of yours may well have one besides.
create table if not exists billing.invoices (
  entry bigint generated always as identity primary key,
  order_id uuid not null,
  customer text not null,
  cents bigint not null,
  written_at timestamptz not null default clock_timestamp()
);
