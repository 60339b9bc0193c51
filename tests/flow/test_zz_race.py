from dualtrack.emulators.faults import Refuse, Rule
from tests.support.flow import Running, Workspace
async def test_x(proxy: Running, b: Workspace) -> None:
    experiment = await proxy.create_experiment()
    run_id = await proxy.create_run(experiment)
    await b.control.set_faults(Rule(path="log-inputs", nth=1, action=Refuse(status=400, code="BAD_REQUEST")))
    await proxy.post("runs/log-inputs", run_id=run_id, datasets=[{"dataset": {"name": "n", "digest": "d", "source_type": "local", "source": "{}"}}])
    await proxy.drained()
    assert (await proxy.admin.call("GET", "/api/v1/parked")).json["parked"] == []
