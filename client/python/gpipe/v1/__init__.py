"""The messages of the API, as proto/gpipe/v1 describes them: `gpipe.v1.JobSpec`, `gpipe.v1.Job`, ...

The modules beside this one are generated when the package is built.
"""

try:
    from gpipe.v1.job_pb2 import *
    from gpipe.v1.job_spec_pb2 import *
    from gpipe.v1.monitoring_pb2 import *
    from gpipe.v1.pipeline_service_pb2 import *
    from gpipe.v1.plan_pb2 import *
    from gpipe.v1.worker_session_pb2 import *
except ModuleNotFoundError as error:
    if error.name is None or not error.name.startswith("gpipe.v1."):
        raise
    raise ModuleNotFoundError("the API's messages have not been generated: `pip install ./client/python`, or "
                              "`python client/python/protos.py` in a checkout", name=error.name) from None
