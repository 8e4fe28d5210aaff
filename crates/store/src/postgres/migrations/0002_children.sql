-- The build that a job asked for last.
alter table jobs add column child bigint;
