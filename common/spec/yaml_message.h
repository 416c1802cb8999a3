#ifndef GPIPE_COMMON_SPEC_YAML_MESSAGE_H_
#define GPIPE_COMMON_SPEC_YAML_MESSAGE_H_

#include <set>
#include <string>
#include <string_view>

#include "common/field_error.h"
#include "common/spec/reader.h"
#include "google/protobuf/message.h"
#include "yaml-cpp/yaml.h"

namespace gpipe::spec {

// One walk over a YAML document that fills a message. What is wrong goes to `errors` and the walk goes on, so that a
// user sees everything at once; `lines` gets the line of every field met. yaml-cpp's exceptions stay inside.
class YamlMessageReader {
 public:
  // Both must outlive this object.
  YamlMessageReader(FieldErrors& errors, SourceMap& lines) : errors_(errors), lines_(lines) {}

  void Read(std::string_view text, google::protobuf::Message& message);

 private:
  using FieldDescriptor = google::protobuf::FieldDescriptor;

  void ReadMessage(const YAML::Node& node, const std::string& path, google::protobuf::Message& message);
  // Reads, from the mappings that `node` merges in, the fields that are not in `seen`.
  void MergeInto(const YAML::Node& node, const std::string& path, google::protobuf::Message& message,
                 std::set<std::string>& seen, size_t depth);
  void Merge(const YAML::Node& from, const std::string& path, google::protobuf::Message& message,
             std::set<std::string>& seen, size_t depth);
  void ReadEntry(const YAML::Node& key, const YAML::Node& value, const std::string& path,
                 google::protobuf::Message& message);
  void ReadField(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                 google::protobuf::Message& message);
  void ReadRepeated(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                    google::protobuf::Message& message);
  // Sets the field, or appends to it when it is repeated.
  void ReadValue(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                 google::protobuf::Message& message);
  void ReadNumber(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                  google::protobuf::Message& message);
  void ReadEnum(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                google::protobuf::Message& message);
  void AddUnknown(const std::string& name, const std::string& path, const google::protobuf::Message& message);
  // A bare word for a message chosen in a oneof: `- relu`. False: it is something else.
  bool ReadBareName(const YAML::Node& node, const std::string& path, google::protobuf::Message& message);
  // False, with an error, when another member of the field's oneof is set already.
  bool CheckOneof(const std::string& path, const FieldDescriptor& field, const google::protobuf::Message& message);

  void AddLine(const std::string& path, const YAML::Node& node);
  // Counts one value against the document's bounds; false, with one error, once they are passed.
  bool Count(const YAML::Node& node);

  FieldErrors& errors_;
  SourceMap& lines_;
  int nodes_ = 0;
  size_t text_bytes_ = 0;
  bool too_large_ = false;
};

}  // namespace gpipe::spec

#endif  // GPIPE_COMMON_SPEC_YAML_MESSAGE_H_
