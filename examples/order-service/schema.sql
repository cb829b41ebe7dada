-- The service's own tables. Onceward's lie in a schema of their own and come with `onceward migrate`.
-- All of this is one transaction. Two processes that start together take turns, which `if not exists` alone does not see to.
select pg_advisory_xact_lock(hashtext('shop tables'));

create schema if not exists shop;

create table if not exists shop.customers (
  name text primary key,
  orders bigint not null
);

create table if not exists shop.orders (
  id uuid primary key,
  customer text not null references shop.customers,
  number bigint not null,
  cents bigint not null,
  created_at timestamptz not null default clock_timestamp(),
  constraint orders_number unique (customer, number)
);
