#include "orchestrator/jobs/stored_job.h"

#include "common/safetensors/shard_names.h"
#include "common/sha256.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"

namespace gpipe::orchestrator {

std::vector<v1::ArtifactRef> TensorFilesOf(const FileMap& files, std::string_view stem) {
  std::vector<v1::ArtifactRef> refs;
  for (const auto& [name, ref] : files) {
    if (safetensors::HoldsTensorsOf(stem, name)) refs.push_back(ref);
  }
  return refs;
}

std::string Fingerprint(const google::protobuf::MessageLite& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);  // Maps in order of key.
    message.SerializeToCodedStream(&coded);
  }
  Sha256 hash;
  hash.Update(bytes);
  return hash.HexDigest();
}

}  // namespace gpipe::orchestrator
