// What predicts, for the page. A server replaces this file by one whose back end sends the photo to it.
//
// A back end has
//   open()                -> about: what model.json holds, so that the page can be drawn; cheap
//   predict(photo, head)  -> {results, seconds, engine, memory}: results by head, among them the one asked for
//   onprogress            a function (text, share) that it calls while it works; share is null if it is not known
// where photo is {width, height, pixels} with pixels a Uint8Array of R, G, B, row by row from the top, and a result
// is, by the task of the head, at the size of the photo:
//   segmentation  {labels, scores}: integers; Float32Array of the probability of each label, or null
//   depth         {depth}: Float32Array
//   regression    {values}: Float32Array, channel by channel
// An error has a message for the user.

export { OnnxBackend as Backend } from "./onnx-backend.js";
