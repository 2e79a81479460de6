/* The viewer of a page: a scan, its anomaly map, its restoration, and what is above a threshold.

All three lie in one volume whose channels NiiVue takes for red, green and blue, and a shader of ours
puts them together, so that whatever is changed is seen at once. The volume runs to the patient's
right, front and top. A voxel of the scan is from 1, black, to 255; that of the map is how many of
`values` it reaches, all thresholds among them; that of the restoration is 0 where it is the scan. */
"use strict";
(() => {
  const by = id => document.getElementById(id);
  const data = JSON.parse(by("volumes").textContent);
  const box = by("viewer"), canvas = by("planes");
  const HEADER = 352;  // bytes before the voxels of a NIfTI file
  const RGB24 = 128, DATATYPE = 70, BITS = 72;  // its code, and where the header has type and size

  const SHADER = `#version 300 es
    precision highp int;
    precision highp float;
    uniform highp sampler3D volume;
    uniform highp sampler2D colormap;
    uniform float restored;  // share of the restoration
    uniform float heat;  // opacity of the map
    uniform float cut;  // least code within the outline
    in vec3 texPos;
    out vec4 color;
    bool above(vec3 at) { return 255.0 * texture(volume, at).b >= cut - 0.5; }
    void main() {
      vec3 here = texture(volume, texPos).rgb;
      vec4 hot = texture(colormap, vec2((255.0 * here.b + 0.5) / 256.0, 0.5));
      vec3 shown = mix(vec3(mix(here.r, here.g, restored)), hot.rgb, hot.a * heat);
      // The outline: some pixel next to this one is on its other side.
      vec3 x = dFdx(texPos), y = dFdy(texPos);
      bool inside = above(texPos);
      bool edge = above(texPos + x) != inside || above(texPos - x) != inside ||
        above(texPos + y) != inside || above(texPos - y) != inside;
      color = vec4(edge ? vec3(0.25, 0.88, 1.0) : shown, 1.0);
    }`;

  async function unpacked(name) {
    const letters = atob(data[name]), packed = new Uint8Array(letters.length);
    for (let at = 0; at < packed.length; at++) packed[at] = letters.charCodeAt(at);
    delete data[name];
    const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(plain).arrayBuffer());
  }

  /* The file of the one volume, and the codes of the map. */
  async function volume() {
    const [file, restoration, map] = await Promise.all(["scan", "restoration", "map"].map(unpacked));
    const voxels = map.length, bytes = new Uint8Array(HEADER + 3 * voxels);
    bytes.set(file.subarray(0, HEADER));
    const header = new DataView(bytes.buffer);
    header.setInt16(DATATYPE, RGB24, true);
    header.setInt16(BITS, 24, true);
    for (let at = 0, to = HEADER; at < voxels; at++) {
      const scan = file[HEADER + at];
      bytes[to++] = scan;
      bytes[to++] = restoration[at] || scan;
      bytes[to++] = map[at];
    }
    return [bytes.buffer, map];
  }

  /* Colours of the map by its codes: clear where cold, nearly opaque soon above. */
  function colours(nv, name) {
    const [cold, hot] = data.heat, table = nv.colormap(name), found = {R: [], G: [], B: [], A: [], I: []};
    for (let code = 0; code < 256; code++) {
      const value = data.values[Math.min(code, data.values.length - 1)];
      const heat = Math.min(Math.max((value - cold) / (hot - cold), 0), 1);
      const at = 4 * Math.round(255 * (0.25 + 0.75 * heat));
      ["R", "G", "B"].forEach((channel, which) => found[channel].push(table[at + which]));
      found.A.push(Math.round(255 * Math.min(heat / 0.2, 1)));
      found.I.push(code);
    }
    nv.addColormap(`${name} map`, found);
    return `${name} map`;
  }

  async function started() {
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("it has no WebGL 2");
    box.hidden = false;  // a canvas that is not shown has no size
    const unpacking = volume();  // while shaders are compiled
    const nv = new niivue.Niivue({
      backColor: [0, 0, 0, 1], crosshairColor: [0.75, 0.85, 0.45, 0.7], crosshairWidth: 0.8,
      crosshairWidthUnit: "mm", fontColor: [0.75, 0.78, 0.82, 1],
      isRadiologicalConvention: true, sagittalNoseLeft: true, show3Dcrosshair: false,
      multiplanarShowRender: niivue.SHOW_RENDER.NEVER, multiplanarPadPixels: 6,
      dragAndDropEnabled: false, dragMode: niivue.DRAG_MODE.slicer3D, clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "", viewModeHotKey: "", logLevel: "error",
    });
    const draw = nv.drawScene.bind(nv);
    nv.drawScene = () => { if (canvas.clientWidth > 0) draw(); };  // on paper it has no size
    await nv.attachToCanvas(canvas);
    nv.setSliceType(nv.sliceTypeMultiplanar);
    nv.setCustomSliceShader(SHADER);
    const [url, codes] = await unpacking;
    const colormap = colours(nv, by("colours").value);
    nv.addVolume(await niivue.NVImage.loadFromUrl({url, name: "scan.nii", colormap}));
    return [nv, codes];
  }

  function run([nv, codes]) {
    const sides = [["L", "R"], ["P", "A"], ["I", "S"]], [, nx, ny] = nv.volumes[0].hdr.dims;
    const slider = by("threshold"), fade = by("fade"), opacity = by("opacity");
    const flicker = by("flicker"), chart = document.querySelector(".profile");
    let outlined = data.trusted, timer = 0;

    // Planes run along the scan's own axes; NiiVue takes those for the patient's unless it is told.
    const TRUE_MM = [0, true];
    const place = () => nv.frac2mm(nv.scene.crosshairPos, ...TRUE_MM).slice(0, 3);

    /* Show what the controls say. */
    function show() {
      const {percentile, code, ml} = data.thresholds[slider.value], shader = nv.customSliceShader;
      shader.use(nv.gl);
      nv.gl.uniform1f(shader.uniforms.restored, Number(fade.value));
      nv.gl.uniform1f(shader.uniforms.heat, Number(opacity.value));
      nv.gl.uniform1f(shader.uniforms.cut, outlined ? code : 256);
      nv.drawScene();
      const words = data.trusted ? `${percentile}: ${ml.toFixed(1)} ml` : "none, see the note";
      by("percentile").textContent = words;
      slider.setAttribute("aria-valuetext", words);
    }

    /* What lies under the crosshair, in words and on the chart. */
    function tell() {
      const mm = place(), [x, y, z] = nv.frac2vox(nv.scene.crosshairPos);
      const where = sides.map(([less, more], axis) =>
        `${mm[axis] < 0 ? less : more} ${Math.abs(mm[axis]).toFixed(0)}`).join("  ");
      const code = codes[x + nx * (y + ny * z)];
      const reached = data.thresholds.filter(each => each.code <= code).pop();
      const share = !data.trusted ? "which is not to be trusted" : reached ? `above ${reached.percentile}% of healthy brain voxels`
        : `below ${data.thresholds[0].percentile}% of healthy brain voxels`;
      const value = code ? data.values[code].toFixed(2) : `below ${data.values[1].toFixed(2)}`;
      by("place").textContent = `${where} mm   ·   map ${value}, ${share}`;
      box.dataset.mm = [...mm].map(value => value.toFixed(2)).join(" ");
      if (!chart) return;
      const {first, last, left, right} = chart.dataset, line = chart.querySelector(".now");
      const across = +left + (mm[2] - first) / (last - first) * (right - left);
      const at = Math.min(Math.max(across, left), right);
      line.setAttribute("x1", at);
      line.setAttribute("x2", at);
      chart.setAttribute("aria-valuenow", mm[2].toFixed(0));
      chart.setAttribute("aria-valuetext", `${mm[2].toFixed(0)} mm`);
    }

    function go(mm) {
      nv.scene.crosshairPos = nv.mm2frac(mm, ...TRUE_MM);
      nv.drawScene();
      tell();
    }

    function step(right, front, above) {
      nv.moveCrosshairInVox(right, front, above);
      tell();
    }

    function set(control, value) {
      control.value = value;
      show();
    }

    const other = () => set(fade, Number(fade.value) < 0.5 ? 1 : 0);

    function flick() {
      const on = flicker.getAttribute("aria-pressed") !== "true";
      flicker.setAttribute("aria-pressed", on);
      clearInterval(timer);
      if (on) timer = setInterval(other, 500);  // slow enough for those whom flashes harm
      else set(fade, 0);
    }

    slider.max = data.thresholds.length - 1;
    slider.value = data.chosen;
    slider.disabled = !data.trusted;
    for (const control of [slider, fade, opacity]) control.addEventListener("input", show);
    by("colours").addEventListener("change", event => {
      nv.volumes[0].colormap = colours(nv, event.target.value);
      nv.refreshColormaps();
      nv.drawScene();
    });
    flicker.addEventListener("click", flick);
    by("reset").addEventListener("click", () => {
      nv.setPan2Dxyzmm([0, 0, 0, 1]);
      go(data.peak);
    });
    nv.onLocationChange = tell;
    for (const button of document.querySelectorAll("button.goto")) {
      button.disabled = false;
      button.addEventListener("click", () => {
        go(button.dataset.mm.split(" ").map(Number));
        canvas.scrollIntoView({block: "nearest"});
      });
    }

    if (chart) {
      const {first, last, left, right} = chart.dataset, width = chart.viewBox.baseVal.width;
      const marks = {role: "slider", tabindex: 0, "aria-valuemin": first, "aria-valuemax": last};
      for (const [name, value] of Object.entries(marks)) chart.setAttribute(name, value);
      const clicked = event => {
        const edges = chart.getBoundingClientRect(), [right0, front0] = place();
        const across = (event.clientX - edges.left) / edges.width * width;
        const z = +first + (across - left) / (right - left) * (last - first);
        go([right0, front0, Math.min(Math.max(z, first), last)]);
      };
      chart.addEventListener("pointerdown", clicked);
      chart.addEventListener("pointermove", event => { if (event.buttons) clicked(event); });
    }

    const keys = {
      ArrowLeft: () => step(1, 0, 0), ArrowRight: () => step(-1, 0, 0),  // the right is on the left
      ArrowUp: () => step(0, 1, 0), ArrowDown: () => step(0, -1, 0),
      PageUp: () => step(0, 0, 1), PageDown: () => step(0, 0, -1),
      r: other, " ": flick, m: () => set(opacity, Number(opacity.value) > 0 ? 0 : 0.6),
      o: () => { outlined = data.trusted && !outlined; show(); },
    };
    const ofChart = {ArrowLeft: keys.PageDown, ArrowDown: keys.PageDown, ArrowRight: keys.PageUp,
      ArrowUp: keys.PageUp};
    const pressed = bound => event => {
      event.stopImmediatePropagation();  // NiiVue has keys of its own
      if (event.ctrlKey || event.altKey || event.metaKey || !(event.key in bound)) return;
      event.preventDefault();
      bound[event.key]();
    };
    canvas.addEventListener("keydown", pressed(keys), true);
    chart?.addEventListener("keydown", pressed({...keys, ...ofChart}));

    show();
    go(data.peak);
    document.body.classList.add("live");
    performance.mark("live");
    window.viewer = nv;  // for the console
  }

  /* Pictures in place of the viewer. */
  function without(error) {
    document.body.classList.remove("live");
    box.hidden = true;
    by("noviewer").hidden = false;
    by("noviewer").querySelector("span").textContent = error.message;
  }

  canvas.addEventListener("webglcontextlost", () => without(new Error("WebGL was taken away")));
  started().then(run).catch(without);
})();
