// The precompiled header of every unit without LibTorch that is built on common/ (cmake/GpipeTargets.cmake): what takes
// long to read and is included by many. A unit includes what it uses all the same.
#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_split.h>
#include <absl/synchronization/mutex.h>
#include <absl/time/time.h>
#include <grpcpp/grpcpp.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gpipe/v1/job_spec.pb.h"
#include "gpipe/v1/monitoring.grpc.pb.h"
#include "gpipe/v1/pipeline_service.grpc.pb.h"
#include "gpipe/v1/worker_session.grpc.pb.h"
