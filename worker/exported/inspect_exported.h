#ifndef GPIPE_WORKER_EXPORTED_INSPECT_EXPORTED_H_
#define GPIPE_WORKER_EXPORTED_INSPECT_EXPORTED_H_

#include <c10/core/Device.h>

#include "gpipe/v1/worker_session.pb.h"
#include "worker/data/artifacts.h"

namespace gpipe::worker {

// Reads the archive's program, finds where it can be cut into layers and what the values between them are like, and
// checks data and loss against it; nothing runs, and no weight is read. If asked, measures each layer on `device`, with
// weights of its own. A layer is what lies between two neighbouring cuts. A cut is left out when the size of a value
// that crosses it depends on the batch in another way than Dimension can say, or its type or layout is none that can be
// sent. What state_dict() has and no node uses belongs to the layer of the tensor before it. Never throws: what does
// not fit is in Inspected.status, as INVALID_ARGUMENT with a field path; UNAVAILABLE or DATA_LOSS: the archive could
// not be read.
v1::Inspected InspectExported(const v1::Inspect& request, Artifacts& artifacts, c10::Device device);

}  // namespace gpipe::worker

#endif  // GPIPE_WORKER_EXPORTED_INSPECT_EXPORTED_H_
