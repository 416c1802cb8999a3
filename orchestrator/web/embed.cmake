# cmake -DOUT=static_data.cc -DFILES="a.html;b.js" -P embed.cmake: the files as a C++ source, byte by byte.
set(arrays "")
set(table "")
set(index 0)
foreach(file ${FILES})
  get_filename_component(name ${file} NAME)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${hex}")
  string(APPEND arrays "constexpr char kFile${index}[] = {${bytes}};\n")
  string(APPEND table "      {\"${name}\", {kFile${index}, sizeof kFile${index}}},\n")
  math(EXPR index "${index} + 1")
endforeach()
file(WRITE ${OUT} "#include \"orchestrator/web/static_files.h\"\n
namespace gpipe::orchestrator {
namespace {

${arrays}
}  // namespace

const std::vector<StaticFile>& AllStaticFiles() {
  static const std::vector<StaticFile> files = {
${table}  };
  return files;
}

}  // namespace gpipe::orchestrator
")
