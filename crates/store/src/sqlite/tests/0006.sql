-- What version 6 held: as version 5, with running times by project.
insert into counters values ('build', 1);
insert into counters values ('number:sails', 4);
insert into counters values ('epoch', 2);
insert into counters values ('record', 6);
insert into facts values (4294967296, 1, '{"build":1,"at":1,"fact":"build_created","event":{"kind":"manual","branch":"main","time":1,"trust":"trusted"},"pipeline":"pipeline.yaml","origin":{"project":"sails","number":4,"source":"6666666666666666666666666666666666666666666666666666666666666666"},"options":{"only":[],"on_failure":"keep_going","urgent":false,"retry_of":null},"client":"ann"}', null);
insert into facts values (4294967297, 1, '{"build":1,"at":2,"fact":"evaluated","graph":{"jobs":{},"holes":[]}}', x'2222222222222222222222222222222222222222222222222222222222222222');
insert into facts values (4294967298, 3, '{"build":1,"at":3,"fact":"attempt_leased","job":"make","attempt":1,"try_number":1,"lease":7,"worker":"local"}
{"build":1,"at":9004,"fact":"attempt_finished","job":"make","attempt":1,"lease":7,"report":{"outcome":"passed","outputs":{"v":"1"},"started":4,"finished":9004,"artifacts":{"bin":{"digest":"3333333333333333333333333333333333333333333333333333333333333333","files":1,"bytes":5}},"usage":{"peak_memory_bytes":1,"cpu_user_us":2,"cpu_system_us":3}}}
{"build":1,"at":9005,"fact":"build_ended","verdict":{"verdict":"passed"}}', null);
insert into graphs values (x'2222222222222222222222222222222222222222222222222222222222222222', x'28b52ffd2041ed010012440e16a0352d06224044c29737635634cc04545ccb7dfd6f427b4c9d865c71d93dbb2544d78084aba93360282f418d46e0adb51d42b2d6399cb10600');
insert into builds (id, pipeline, kind, branch, event, client, created_at, name, started_at, finished_at, verdict, verdict_word, graph, facts, jobs, errors, warnings, passed, failed, canceled, skipped, reused, open_gates, project, number, source, commit_id)
values (1, 'pipeline.yaml', 'manual', 'main', '{"kind":"manual","branch":"main","time":1,"trust":"trusted"}', 'ann', 1, '', 3, 9005, '{"verdict":"passed"}', 'passed', x'2222222222222222222222222222222222222222222222222222222222222222', 5, 1, 0, 0, 1, 0, 0, 0, 0, 0, 'sails', 4, x'6666666666666666666666666666666666666666666666666666666666666666', '');
insert into jobs values (1, 'make', 'ended', '{"outcome":"passed","outputs":{"v":"1"}}', null, null, null, 1, 1, null, 4, 9004, null, null);
insert into attempts values (1, 1, 'make', 1, 7, 'local', 3, '{"outcome":"passed"}', 4, 9004, 0, 0, 3);
insert into artifacts values (1, 'make', 1, 'bin', x'3333333333333333333333333333333333333333333333333333333333333333', 1, 5);
insert into job_histories values ('sails', 'make', '[9]');
insert into operations values (x'1111111111111111111111111111111111111111111111111111111111111111', 'trusted', 1, 1, 'make', 'make', '{"outcome":"passed"}', '{}', 0, 5, 5, null, null, 1, 4, 'no room before');
insert into operations values (x'4444444444444444444444444444444444444444444444444444444444444444', 'trusted', 1, 1, 'test/1', 'test', '{"outcome":"passed"}', '{}', 0, 5, 5, 6, 'no room', null, null, null);
insert into manifests values (x'1111111111111111111111111111111111111111111111111111111111111111', cast('{"file:a":"b"}' as blob));
insert into caches values ('trusted', 'cargo-1', '["3333333333333333333333333333333333333333333333333333333333333333"]', 5, 1, 'make', 5, 5, null, null);
insert into cache_reads values ('trusted', 'cargo-1', 1, 'make', 6);
insert into cache_blobs values ('trusted', 'cargo-1', x'3333333333333333333333333333333333333333333333333333333333333333');
insert into tried values (x'5555555555555555555555555555555555555555555555555555555555555555', 7);
insert into manifests values (x'5555555555555555555555555555555555555555555555555555555555555555', cast('{"file:a":"c"}' as blob));
insert into journal values (1, '[[1,0,1]]');
insert into journal values (3, '[[1,1,1],[1,2,3]]');
insert into records values ('token', 'ann', 6, cast('{}' as blob), 8);
insert into audit values (2, 9, 'ann', 'cancel', 'build 1', 'sails', '127.0.0.1', '');
insert into log_chunks values (1, 1, cast('line' as blob));
