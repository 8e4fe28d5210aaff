-- What operations were made of that did not pass, and the tombstones that later results took the place of.

-- The manifest of each is kept beside those of results.
create table tried (
    digest blob not null primary key,
    at integer not null
) strict, without rowid;
create index tried_at on tried (at);

-- The tombstone that was there when the row was recorded again.
alter table operations add column replaced_build integer;
alter table operations add column replaced_at integer;
alter table operations add column replaced_reason text;
