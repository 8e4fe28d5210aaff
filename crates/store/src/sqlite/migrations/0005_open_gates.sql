-- Of a gate whose job ended without an answer nobody is asked: it counts as open no longer.
update builds set open_gates = (
    select count(*) from gates
    where gates.build = builds.id and answered is null
      and not exists (select 1 from jobs where jobs.build = gates.build and jobs.name = gates.job and jobs.state = 'ended')
)
where open_gates > 0;
