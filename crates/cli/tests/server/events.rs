//! What is submitted is taken as `ropewalk run` takes it: by which event, with which parameters.

use crate::installation::Site;

#[test]
fn a_pipeline_that_people_start_is_started_and_a_parameter_that_there_is_not_is_refused() {
    let site = Site::new(
        "on: { manual: { params: { v: { type: string, default: one } } } }\njobs:\n  a: { run: 'echo got ${{ params.v }}' }\n",
    );
    let _server = site.serve();
    let _worker = site.work("w1", &[]);
    assert!(site.submit(&[], 0).contains("a | got one"));
    assert!(site.submit(&["--param", "v=two"], 0).contains("a | got two"));
    let refused = site.submit(&["--param", "x=1"], 2);
    assert!(refused.contains("there is no parameter `x`: it has v"), "{refused}");
    let refused = site.submit(&["--event", "push"], 2);
    assert!(refused.contains("the pipeline does not answer to this event"), "{refused}");
}
