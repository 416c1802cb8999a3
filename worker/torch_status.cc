#include "worker/torch_status.h"

#include <c10/util/Exception.h>

#include <new>
#include <string>

#include "absl/strings/str_cat.h"

namespace gpipe::worker {
namespace {

// LibTorch's messages go on with a backtrace, or advice on debugging, after the first line.
std::string FirstLine(const std::string& text) { return text.substr(0, text.find('\n')); }

// The CPU allocator has no exception type of its own.
bool IsCpuOutOfMemory(const std::string& message) { return message.find("DefaultCPUAllocator") != std::string::npos; }

}  // namespace

absl::Status CurrentExceptionStatus() {
  try {
    throw;
  } catch (const c10::OutOfMemoryError& error) {
    return absl::ResourceExhaustedError(absl::StrCat("out of memory: ", FirstLine(error.what_without_backtrace())));
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const c10::ValueError& error) {
    return absl::InvalidArgumentError(FirstLine(error.what_without_backtrace()));
  } catch (const c10::IndexError& error) {
    return absl::InvalidArgumentError(FirstLine(error.what_without_backtrace()));
  } catch (const c10::TypeError& error) {
    return absl::InvalidArgumentError(FirstLine(error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    if (IsCpuOutOfMemory(message))
      return absl::ResourceExhaustedError(absl::StrCat("out of memory: ", FirstLine(message)));
    return absl::InternalError(FirstLine(message));
  } catch (const std::exception& error) {
    return absl::InternalError(FirstLine(error.what()));
  } catch (...) {
    return absl::InternalError("unknown exception");
  }
}

}  // namespace gpipe::worker
