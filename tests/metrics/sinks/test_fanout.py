from dpo_cli.metrics.sinks import Fanout, RunInfo


class Recorder:
    def __init__(self):
        self.calls = []

    def start(self, info):
        self.calls.append("start")

    def write(self, step, values):
        self.calls.append((step, dict(values)))

    def close(self):
        self.calls.append("close")


class Broken(Recorder):
    def write(self, step, values):
        super().write(step, values)
        raise RuntimeError("server on fire")


def test_a_sink_that_fails_is_named_once_and_the_others_go_on(tmp_path, caplog):
    broken, good = Broken(), Recorder()
    sinks = Fanout([broken, good])
    sinks.start(RunInfo("run", tmp_path, steps=2))
    sinks.write(1, {"train/loss": 1.0})
    sinks.write(2, {"train/loss": 0.5})
    sinks.close()
    assert good.calls == ["start", (1, {"train/loss": 1.0}), (2, {"train/loss": 0.5}), "close"]
    assert broken.calls == ["start", (1, {"train/loss": 1.0})]
    assert [record.getMessage() for record in caplog.records] == [
        "Broken stopped: RuntimeError: server on fire"
    ]
