-- The running times of the last attempts at a project's job that passed, in milliseconds, as JSON, the newest last.
create table job_histories (
    project text not null,
    job text not null,
    durations text not null,
    primary key (project, job)
) strict, without rowid;
-- Those before were of all projects together: they are one's own only where there is no other. Older programs still write theirs.
insert into job_histories (project, job, durations)
select (select max(project) from builds), job, durations from histories
where (select count(distinct project) from builds) = 1;
delete from histories;
